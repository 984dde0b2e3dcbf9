"""What this host's processes see of the agent: both of its sockets, open before the rest of it is there.

An agent that starts has a few hundred modules to import, gRPC and TLS among them, a tenth of a second where
there is hardware and ten in an emulated machine. Guests are greeted meanwhile, and the runtime's requests
wait. So this module and what it imports must stay light.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from migrrdma_runtime.agent.local.containers import Containers
from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.guest_objects import Question
from migrrdma_runtime.agent.local.guests import Guests
from migrrdma_runtime.agent.local.runtime_api import Operation, Runtime, RuntimeApi
from migrrdma_runtime.base import paths
from migrrdma_runtime.wire.agent_messages import Message


class LocalSockets:
    """The sockets. Open them, then say what is to be done about guests and, last, about requests."""

    def __init__(self, containers: Containers, run_dir: Path, *, answers: bool = False) -> None:
        self.containers = containers
        self.guests = Guests(self.containers, run_dir, self._connected, self._asked if answers else None)
        self.api = RuntimeApi(self.containers)
        self._runtime_socket = run_dir / paths.RUNTIME_SOCKET
        self._on_connect: Callable[[Guest], None] | None = None
        self._on_question: Callable[[Guest, Question], None] | None = None
        self._questions: list[tuple[Guest, Question]] = []
        """That have been asked before there was somebody to answer them."""
        self._listens = False

    async def listen(self) -> None:
        """Open the sockets, if they are not open yet."""
        if self._listens:
            return
        self._listens = True
        # First: a container that is announced while the directories are looked through is looked at afterwards.
        await self.api.listen(self._runtime_socket)
        self.guests.listen()

    def receive(
        self, on_connect: Callable[[Guest], None], on_question: Callable[[Guest, Question], None]
    ) -> None:
        """Have every guest that connects looked at, and every question answered, and those that there are already."""
        self._on_connect, self._on_question = on_connect, on_question
        questions, self._questions = self._questions, []
        for guest, question in questions:
            on_question(guest, question)
        for guest in self.guests.all():
            on_connect(guest)

    def serve(self, operations: dict[str, Operation]) -> None:
        """Carry out the requests of runtimes, those first that have waited."""
        self.api.serve({"announce": self._announce, **operations})

    async def close(self) -> None:
        """Close what is open; whoever was connected connects to the next agent."""
        await self.api.close()
        await self.guests.close()

    async def _announce(self, request: Message, _runtime: Runtime) -> Message:
        self.guests.listen_in(request["container"])
        return {}

    def _asked(self, guest: Guest, question: Question) -> None:
        if self._on_question is not None:
            self._on_question(guest, question)
        else:
            self._questions.append((guest, question))

    def _connected(self, guest: Guest) -> None:
        if self._on_connect is not None:
            self._on_connect(guest)
