"""What crosses from one process or host to another, each format defined once: messages, the manifest, tokens.

It uses base. What the OCI runtime imports (manifest, runtime_client) imports nothing heavy.
"""
