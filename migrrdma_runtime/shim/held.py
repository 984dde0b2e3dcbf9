"""A container whose checkpoint may be restored, or has been, is not created again: there would be two of it.

Engines do so by themselves: a restart policy acts on the exit that a checkpoint is, within seconds and at every boot.
What says so is the agent's own record, read from its database, so that it holds whether or not the agent runs.
"""

import os

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import AgentError

_HELD = ("suspending", "dumping", "parked", "claimed", "committed", "superseded", "adopting")
"""The states of a source between the begin of its migration and its end."""


def require_not_held(container_id: str) -> None:
    """Refuse to create a container that takes part in a migration as the one that moves; `AgentError` says which.

    Also raised when the agent's database is there and cannot be read: then nobody knows.
    """
    database = os.path.join(_state_dir(), "state.db")
    if not os.path.exists(database):
        return
    import json
    import sqlite3
    from urllib.parse import quote

    try:
        db = sqlite3.connect(f"file:{quote(database)}?mode=ro", uri=True, timeout=5)
        try:
            rows = db.execute("SELECT id, state, data FROM migration WHERE role = 'source'").fetchall()
        finally:
            db.close()
        found = [(one, state) for one, state, data in rows if json.loads(data)["container"] == container_id]
    except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
        raise AgentError(
            f"container {container_id:.12} is not created: whether it has been moved elsewhere cannot be read from "
            f"{database} ({error})"
        ) from error
    for migration, state in found:
        if state in _HELD:
            raise AgentError(
                f"container {container_id:.12} is not created: its checkpoint (migration {migration}, {state}) "
                f"{_what_it_is(state)}"
            )


def _what_it_is(state: str) -> str:
    if state == "committed":
        return (
            "has been restored on another host, which has not finished yet: see `migrrdma status` there, or, if that "
            "host is lost for good, give it up with `migrrdma migration abandon --lost`"
        )
    if state == "superseded":
        return (
            "was adopted by another host while this one was away, and is the application unless that runs there: see "
            "`migrrdma migration show`, and let the container be created anew with `migrrdma migration abandon`"
        )
    if state == "adopting":
        return (
            "is being taken back from the host that had adopted it, where it may run: run `migrrdma migration adopt` "
            "again until every partner has agreed, or give that up with `migrrdma migration abandon`"
        )
    if state in ("suspending", "dumping"):
        return "is just being made: try again when that has ended"
    return (
        "is the application now: restore it with `docker start --checkpoint`, here or elsewhere, or give it up with "
        "`migrrdma migration abandon`"
    )


def _state_dir() -> str:
    """Where the agent keeps its state, by its own configuration."""
    file = os.environ.get("MIGRRDMA_AGENT_CONFIG") or paths.AGENT_CONFIG_FILE
    try:
        with open(file, "rb") as stream:
            text = stream.read().decode()
    except (OSError, ValueError):
        return paths.AGENT_STATE_DIR  # then no agent can be running with another one
    if not any(line.lstrip().startswith("state_dir") for line in text.splitlines()):
        return paths.AGENT_STATE_DIR
    import tomllib

    try:
        return str(tomllib.loads(text).get("state_dir", paths.AGENT_STATE_DIR))
    except ValueError:
        return paths.AGENT_STATE_DIR
