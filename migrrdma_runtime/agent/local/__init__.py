"""The host as its agent sees it: guests, containers, devices, the OCI runtime, and the sockets they come to.

It uses inspection, wire, base and pyverbs.
"""
