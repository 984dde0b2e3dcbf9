"""The host agent: guests on a unix socket, other agents over TLS."""
