"""The OCI runtime's own steps: read a call (argv), edit its bundle (spec), and become or run runc (lowlevel).

It uses base and criu. Every container start passes through here, so what is not needed by every call is imported where
it is needed.
"""
