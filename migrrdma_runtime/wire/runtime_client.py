"""What the OCI runtime and ``migrrdma status`` ask this host's agent.

The OCI runtime imports this when it checkpoints or restores, under ``python -I -S``: nothing heavy here.

    with client.connect(run_dir) as agent:
        ready = agent.checkpoint(container, leave_running=False)     # partners suspended, both ends drained
        manifest.write(images, ready["manifest"])                    # first: the dump kills the container
        ...dump...
        agent.report(ready["migration"], succeeded=True)             # or False: both ends go on as before

A report of a successful dump that does not get through loses nothing: the agent finds it in a file
(``dump_outcome.py``), or finds out by itself. Every failure is one of ``errors.py``, of the kind that the agent
raised, with its message of one line.
"""

import contextlib
import json
import socket
import time

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import UnreachableError
from migrrdma_runtime.wire.service_line import LostError, ServiceLine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

    Message = dict[str, Any]

PATIENCE_S = 20
"""Without any line from the agent, which sends one every 3 seconds, for as long as this it counts as hung."""

IN_DOUBT_S = 600
"""For so long a restore waits to hear that it is committed, while the agent is restarted, hung or gone."""

STARTED_S = 60
"""An agent that is being started takes up what the last one has left before it answers; that is seconds at most."""

ANNOUNCE_S = 1
"""For an agent to take the word that a container is being made: an agent that hangs holds up no container."""


def announce(run_dir: str, container: str) -> None:
    """Say that a container is being made, so that the agent listens in its directory before it runs.

    No answer is waited for, and an agent that cannot be reached is no error: it looks for itself when it is started.
    """
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as agent,
    ):
        agent.settimeout(ANNOUNCE_S)
        agent.connect(f"{run_dir}/{paths.RUNTIME_SOCKET}")
        agent.sendall(json.dumps({"op": "announce", "container": container}).encode() + b"\n")


def connect(run_dir: str) -> "Agent":
    """Connect to this host's agent."""
    return Agent(f"{run_dir}/{paths.RUNTIME_SOCKET}")


class Agent:
    """A connection to this host's agent. A lost one is made again where the protocol allows to ask again."""

    def __init__(self, path: str, patience: float = PATIENCE_S) -> None:
        self._path = path
        self._patience = patience
        self._line = self._connect()

    def __enter__(self) -> "Agent":
        """Nothing: it is connected already."""
        return self

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: "BaseException | None",
        traceback: "TracebackType | None",
    ) -> None:
        """Close the connection."""
        self._line.close()

    def checkpoint(
        self,
        container: str,
        *,
        leave_running: bool,
        move: str = "",
        only_for: str = "",
        on_step: "Callable[[str], None] | None" = None,
    ) -> "Message | None":
        """Quiesce a container's RDMA for a dump.

        ``move``: the one whose step it is; ``only_for``: the agent that alone may restore it then.
        None: the container holds nothing of RDMA, dump it as it is. Else the migration's name and the
        manifest to be written beside the images; the runtime must dump now, and report.
        """
        answer = self._request(
            {
                "op": "checkpoint",
                "container": container,
                "leave_running": leave_running,
                "move": move,
                "only_for": only_for,
            },
            on_step,
        )
        return answer.get("ready")

    def restore(
        self, container: str, manifest: "Message", *, on_step: "Callable[[str], None] | None" = None
    ) -> str:
        """Claim a checkpoint for this host and prepare its restore; the runtime restores now, and reports."""
        answer = self._request({"op": "restore", "container": container, "manifest": manifest}, on_step)
        return str(answer["ready"]["migration"])

    def report(
        self,
        migration: str,
        *,
        succeeded: bool,
        steps: "list[Message] | None" = None,
        on_step: "Callable[[str], None] | None" = None,
        again: bool = True,
    ) -> "Message":
        """Say how the dump or restore went, and wait for the end: of a restore, until its connections work.

        ``again``: of an agent that is restarted meanwhile, ask its successor.
        ``steps`` are the runtime's own timings: ``{"name": …, "start": seconds since 1970, "seconds": …}``.
        Returns the result with the timeline. After a dump, ``parked`` says that the application is in the image alone:
        also if a failure was reported but the processes have ended.
        """
        request = {"op": "report", "migration": migration, "succeeded": succeeded, "steps": steps or []}
        try:
            answer = self._request(request, on_step)
        except LostError:
            if not again:
                raise
            # The agent was restarted: it finds the migration in its records and waits for this report.
            self._reconnect()
            answer = self._request(request, on_step)
        result: Message = answer["done"]
        return result

    def report_restored(
        self, migration: str, *, steps: "list[Message]", patience: float = IN_DOUBT_S
    ) -> "Message":
        """Say that a restore succeeded, and wait until it is committed, and return the result, or given back.

        An error with ``released``: it was given back, and what was restored is to be killed. Any other error, also of
        an agent that says nothing for ``patience`` seconds in all: it may be committed, and nothing may be killed.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                return self.report(migration, succeeded=True, steps=steps)
            except UnreachableError as error:
                if error.answered or time.monotonic() > deadline:
                    raise
            self._reconnect(deadline)

    def status(self) -> "Message":
        """What the agent knows: its guests, its migrations. It knows at once, unless it is still being started."""
        result: Message = self._request({"op": "status"}, None, STARTED_S)["done"]
        return result

    def objections(self) -> "Message":
        """What would refuse a checkpoint, of each of its guests: ``reasons``, null if it does not answer."""
        result: Message = self._request({"op": "objections"}, None, STARTED_S)["done"]
        return result

    def abandon(self, migration: str, *, lost: bool, role: str = "") -> str:
        """Give up what waits here, or (``lost``) what waits for a host that is gone; returns in which role.

        ``role``: the one of this host that is meant, where it has several in that migration.
        """
        request = {"op": "abandon", "migration": migration, "lost": lost, "role": role}
        return str(self._request(request, None)["done"]["role"])

    def move(self, move: str) -> "Message":
        """How it stands with the checkpoint that is a move's step: its ``state``, and ``migration``; empty: none."""
        result: Message = self._request({"op": "move", "move": move}, None)["done"]
        return result

    def examine(self, container: str) -> "Message":
        """What would refuse a move now: ``obstacles``; and ``build_ids`` of the guest libraries that it runs."""
        result: Message = self._request({"op": "examine", "container": container}, None)["done"]
        return result

    def take_back(self, move: str) -> "Message":
        """Have a move come to nothing. ``taken_back``: it has; else ``state``: committed, or in doubt still."""
        result: Message = self._request({"op": "take_back", "move": move}, None)["done"]
        return result

    def adopt(self, document: "Message", fenced: str) -> "Message":
        """Have this host's agent decide about a checkpoint whose host is gone; returns its manifest from now on."""
        request = {"op": "adopt", "manifest": document, "fenced": fenced}
        manifest: Message = self._request(request, None)["done"]["manifest"]
        return manifest

    def _connect(self) -> ServiceLine:
        return ServiceLine(self._path, self._patience, "agent", "migrrdma status")

    def _reconnect(self, deadline: float = 0.0) -> None:
        """Connect to the agent that takes the lost one's place, as soon as it is there."""
        self._line.close()
        deadline = max(deadline, time.monotonic() + self._patience)
        while True:
            try:
                self._line = self._connect()
                return
            except UnreachableError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)  # nothing tells when a service has been started again

    def _request(
        self, request: "Message", on_step: "Callable[[str], None] | None", within: "float | None" = None
    ) -> "Message":
        """Ask, and wait for the runtime's turn or the end; ``within`` seconds, if they are given."""
        asked = time.monotonic()
        self._line.say(request)
        while True:
            answer = self._line.hear()
            if within is not None and answer.get("alive") and time.monotonic() - asked > within:
                raise UnreachableError(
                    f"the agent of this host has not come to answer within {within:g} s ({self._path}), and says "
                    "that it is alive: see what its start waits for in `journalctl -u migrrdma-agent`"
                )
            if "ready" in answer or "done" in answer:
                return answer
            if on_step is not None and "step" in answer:
                on_step(answer["step"])
