"""What ``migrrdma check`` examines: one function per subject, each returning ok, a warning or a failure.

It uses host.install, host, agent.peers, shim, wire, engine, base and cryptography.
"""
