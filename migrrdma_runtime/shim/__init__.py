"""What the OCI runtime does to a call: read it, edit its bundle, find runc, and become it or run it as a child.

It uses criu, wire, inspection and base. Every container start passes through here, so what is not needed by every call
is imported where it is needed.
"""
