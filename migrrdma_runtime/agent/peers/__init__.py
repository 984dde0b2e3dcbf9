"""The agents of other hosts: how they are found and recognised, and how they are asked.

It uses wire, base, grpc, cryptography and jsonschema.
"""
