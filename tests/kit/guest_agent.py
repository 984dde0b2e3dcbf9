"""A small agent for tests of the guest library: it drives one guest through its control socket.

It does what the real agent does for both ends of a migration, but alone: the programs under test hold both ends
of their connections, so every number that would come from another host comes from the same guest.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from migrrdma_runtime.agent.local.usable_keys import by_domain, srqs_by_domain
from migrrdma_runtime.wire.guest_messages import Message, Wire, text

ROOT = Path(__file__).resolve().parents[2]
WIRE = Wire.load(ROOT / "guest" / "wire" / "control.h")
STATES = {name: value for name, value in WIRE.constants.items() if name.startswith("MIG_STATE_")}
PATIENT_S = 120
"""For what comes at once, on however busy a machine."""

MOVING, PARTNER = 1, 2
"""The peers' names in CONNECT and KEYS: what faces the first context, and what faces the second; see `facing`."""


def facing(name: int, pd: int) -> int:
    """The name of what faces one protection domain of a context of that name."""
    return name | pd << 8


class GuestError(AssertionError):
    """The guest answered with an error."""

    def __init__(self, message: Message) -> None:
        self.error: int = message.body["error"]
        self.text = text(message.body["text"])
        self.qps = [record["vqpn"] for record in message.records]
        super().__init__(f"{os.strerror(self.error)}: {self.text} {self.qps or ''}")


class Program:
    """A program under the guest library that takes commands on stdin and answers each with a line."""

    def __init__(self, command: Sequence[str | Path], env: Mapping[str, str], log: Path) -> None:
        self.log = log
        self._stderr = log.with_suffix(".stderr").open("wb")
        preload = f"LD_PRELOAD={env['LD_PRELOAD']}"
        self.process = subprocess.Popen(
            # ThreadSanitizer needs certain addresses to be free, from the process's first moment.
            ["setarch", "-R", "env", preload, *map(str, command)],
            env={**os.environ, **env, "LD_PRELOAD": "", "MIGRRDMA_LOG": f"debug:{log}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        assert self.line() == "ready", self.diagnosis()

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._stderr.close()

    def diagnosis(self) -> str:
        log = self.log.read_text()[-2000:] if self.log.exists() else ""
        return f"{self.log.with_suffix('.stderr').read_text()[-3000:]}\n{log}"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, command: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.line()
        assert answer, f"no answer to {command!r}: {self.diagnosis()}"
        return answer

    def verdict(self) -> str:
        """End the program; ``exact`` when nothing was lost, doubled, reordered or changed."""
        verdict = self.tell("stop")
        self.process.wait(PATIENT_S)
        if verdict == "exact":
            assert self.process.returncode == 0, self.diagnosis()
        return verdict

    def progress(self) -> int:
        answer = self.tell("count").split(" ", 1)
        assert len(answer) == 1, answer[1]
        return int(answer[0])

    def wait_for_progress(self, more: int = 200, seconds: float = PATIENT_S) -> None:
        """Return when this many messages more have arrived."""
        start = self.progress()
        deadline = time.monotonic() + seconds
        while self.progress() < start + more:
            assert time.monotonic() < deadline, f"no progress since {start} messages: {self.diagnosis()}"


class Agent:
    """The listening socket and the one guest that is connected to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "guest.sock"
        self._answers = False
        self.listen()
        self._connection: socket.socket | None = None
        self._kept: list[socket.socket] = []
        self._ident = 0
        self.hello: dict[str, Any] = {}
        self.diagnosis: Callable[[], str] = str
        """What to say when the guest is gone; set by who started it."""

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.hang_up()
        for connection in self._kept:
            connection.close()
        self._listener.close()

    @property
    def answers(self) -> bool:
        """Whether a guest that calls from now on is told that its questions are answered."""
        return self._answers

    @answers.setter
    def answers(self, answers: bool) -> None:
        self._answers = answers
        if self.path.exists():
            self._show_answers()

    def _show_answers(self) -> None:
        """Say it as the real agent does, by the mode, to guests that are quicker than its welcome.

        Who takes the one that a umask leaves for a promise waits for answers, for 40 s.
        """
        self.path.chmod(0o777 if self._answers else 0o666)

    def listen(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self.path))
        self._show_answers()
        self._listener.listen()
        self._listener.settimeout(PATIENT_S)

    def vanish(self) -> None:
        """Leave nothing that could be called; :meth:`listen` ends it."""
        self.hang_up()
        self.path.unlink()
        self._listener.close()

    @property
    def environment(self) -> dict[str, str]:
        return {"MIGRRDMA_SOCKET": str(self.path)}

    @property
    def connection(self) -> socket.socket:
        assert self._connection is not None
        return self._connection

    def accept(self, *, keep: bool = False) -> dict[str, Any]:
        """Wait for a guest's call; the one before is hung up on, or kept open beside it."""
        if keep:
            self._kept.append(self.connection)
        else:
            self.hang_up()
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(PATIENT_S)
        message = self.receive()
        assert message.kind == "HELLO"
        self.hello = message.body
        self.connection.send(WIRE.pack("WELCOME", {"answers": int(self.answers)}))
        return self.hello

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def receive(self) -> Message:
        packet = self.connection.recv(1 << 16)
        assert packet, f"the guest hung up: {self.diagnosis()}"
        return WIRE.unpack(packet)

    def send(
        self,
        kind: str,
        body: Mapping[str, Any] | None = None,
        records: Iterable[Mapping[str, Any]] = (),
        *,
        srqs: bool = False,
    ) -> int:
        """Send a request, in parts if its records are many; return its number."""
        self._ident += 1
        parts = list(records)
        while len(parts) > 400 and kind == "KEYS":
            self.connection.send(WIRE.pack(kind, body, parts[:400], ident=self._ident, more=True))
            assert self._answer().body["error"] == 0
            parts = parts[400:]
        self.connection.send(WIRE.pack(kind, body, parts, ident=self._ident, srqs=srqs))
        return self._ident

    def _answer(self) -> Message:
        message = self.receive()
        assert message.ident == self._ident, (message, self._ident)
        while message.more:
            part = self.receive()
            message.records += part.records
            message.more = part.more
        return message

    def answer(self) -> Message:
        message = self._answer()
        if message.kind == "DONE" and message.body["error"]:
            raise GuestError(message)
        return message

    def ask(
        self,
        kind: str,
        body: Mapping[str, Any] | None = None,
        records: Iterable[Mapping[str, Any]] = (),
        *,
        srqs: bool = False,
    ) -> Message:
        self.send(kind, body, records, srqs=srqs)
        message = self.answer()
        assert message.kind == WIRE.kinds[kind].reply
        return message

    # What a migration is made of.

    def contexts(self) -> dict[str, int]:
        return {text(c["device"]): c["context"] for c in self.ask("LIST_CONTEXTS").records}

    def qps(self) -> list[dict[str, Any]]:
        return self.ask("LIST_QPS").records

    def quiesce(self, timeout_ms: int = 1000 * PATIENT_S, alone_s: int = 0) -> None:
        self.ask("QUIESCE", {"timeout_ms": timeout_ms, "alone_s": alone_s})

    def resume(self) -> None:
        self.ask("RESUME")

    def wake(self) -> None:
        """Ask a parked guest to call, wherever it is now."""
        name = self.directory / f"resume-{self.hello['token']:016x}"
        name.touch()
        self.accept()
        name.unlink()

    def connect_all(self, moved: Mapping[int, tuple[bytes, int]]) -> None:
        """Connect every new QP; ``moved`` is, per context, its GID now and the name of what faces it."""
        qps = self.qps()
        # Two contexts may have the same numbers, but hardly the same pairs of them.
        now = {(q["vqpn"], q["dest_vqpn"]): q for q in qps}
        records = []
        for qp in qps:
            peer = now.get((qp["dest_vqpn"], qp["vqpn"]))
            if not qp["next_pqpn"] or peer is None:
                continue
            gid, name = moved[peer["context"]]
            pair = qp["vqpn"] * 2654435761 ^ peer["vqpn"] * 2654435761
            records.append(
                {
                    "context": qp["context"],
                    "vqpn": qp["vqpn"],
                    "dest_pqpn": peer["next_pqpn"] or peer["pqpn"],
                    "sq_psn": (pair ^ qp["vqpn"]) & 0xFFFFFF,
                    "rq_psn": (pair ^ peer["vqpn"]) & 0xFFFFFF,
                    "peer": facing(name, peer["pd"]),
                    "dgid": gid,
                }
            )
        for start in range(0, len(records), 400):
            self.ask("CONNECT", None, records[start : start + 400])

    def give_keys(self, context: int, name: int) -> None:
        """Tell the QPs that face this context which keys of its memory they can use now."""
        records = self.ask("LIST_MRS").records
        keys = by_domain(records)
        for (where, domain), queues in srqs_by_domain(records).items():
            if where == context:
                numbers = [{"vrkey": virtual, "prkey": now} for virtual, now in queues]
                self.ask("KEYS", {"peer": facing(name, domain)}, numbers, srqs=True)
        for pd in sorted({qp["pd"] for qp in self.qps() if qp["context"] == context}):
            pairs = [{"vrkey": virtual, "prkey": now} for virtual, now in keys.get((context, pd), [])]
            self.ask("KEYS", {"peer": facing(name, pd)}, pairs)
