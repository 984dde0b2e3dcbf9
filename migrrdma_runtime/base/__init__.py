"""What everything else may use: the package's errors, paths, configuration, whole-file writes, and GIDs.

It uses nothing. The OCI runtime imports it at every container start: Python's standard library is all there is.
"""
