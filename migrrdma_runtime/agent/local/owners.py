"""Whose a process is: its container's, or, outside of containers, its user's. Limits are each owner's."""

from __future__ import annotations


def owner(container: str, user: int) -> str:
    """The name of the container; that of the user if it is none."""
    return container or f"/{user}"  # a container's id is the name of a folder, and has no "/"


def whose(name: str) -> str:
    """An owner as a message names it; "": the host."""
    if name.startswith("/"):
        return f"user {name[1:]} of the host"
    return f"container {name:.12}" if name else "the host"
