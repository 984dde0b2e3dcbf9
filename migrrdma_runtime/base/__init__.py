"""What everything else may use: the package's errors, paths, configuration, whole-file writes, and GIDs.

It uses nothing but Python's standard library: the OCI runtime imports it at every container start.
"""
