"""What crosses from one process or host to another, each format defined once: messages, the manifest, tokens.

It uses base and jsonschema. What the OCI runtime imports (manifest, runtime_client) uses only base.
"""
