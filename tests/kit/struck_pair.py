"""Two containers with connections between them, one of which moves while things are struck; and the one oracle.

Whatever is struck: exactly one copy of the container runs or can be restored; both ends of the integrity workload go on
and find nothing wrong; nothing is left behind; and every command that fails has ended in time and has said why.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import workload
from docker_container import DockerContainer
from fault_cases import Blow, Case, Course, Side
from migrrdma_lab.errors import NodeCommandError, RackError
from migrrdma_lab.namespaces.rack import FastRack
from migrrdma_lab.plan import DST, NODES, PEER, SRC, Node
from migrrdma_lab.shell import Shell
from runtime_container import RuntimeContainer
from striking import AtSomeTime, Blows, arm

from migrrdma_runtime.base import fault_points, paths
from migrrdma_runtime.base.fault_points import Action, Moment, name_of

_VERDICT = re.compile(r"integrity: (?!\d+ QPs on )")
"""The line that an end prints last; the first one says what it runs on."""

GOES_ON = "^ *[0-9]+ s +[1-9][0-9]* ops/s"

IN_TIME_S = 240.0
"""A command or a wait that takes longer has no deadline: the longest of `IMPATIENT` together are much less, on however
busy a machine; but for a partner's patience, which is longer: nothing may end by that alone."""

IMPATIENT = {
    "guest": 5.0,
    "peer": 2,
    "drain": 5,
    "reconnect": 10,
    "doubt": 3,
    "partner": 900,
    "turn": 3,
    "ask": 0.3,
}

_SERVICE = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestartSec=100ms\n"
"""An agent is killed here more often than systemd takes for a mishap."""

_STATUS_S = 20.0
"""An agent that takes longer to say how it stands is none that answers."""

LATENCY_NS = 5_000_000
"""Of the wire. What is tested is not how much goes over it: the processors are for the rest."""

_FORGET = f"""
iptables -w -F INPUT; iptables -w -F OUTPUT; rm -rf {fault_points.FOLDER} {fault_points.GUEST_FOLDER}
systemctl stop migrrdma-agent; rm -rf /var/lib/migrrdma/agent/*
find /run/migrrdma/agent -name "resume-*" -delete; systemctl start migrrdma-agent
"""
"""What a case that has failed may have left would be the next one's."""

_AWAY = "/run/systemd/system/migrrdma-agent.service.d"
_STAYS_AWAY = f"""
mkdir -p {_AWAY}; printf '[Service]\\nRestart=no\\n' >{_AWAY}/stays-away.conf; systemctl daemon-reload
"""

_AS_USUAL = "sed -i '/^late_commit/d' /etc/migrrdma/config.toml"
_AFTERWARDS = f"{_AS_USUAL}; sed -i 's/^\\[criu\\]$/&\\nlate_commit = false/' /etc/migrrdma/config.toml"

_FINAL = {"done", "undone", "abandoned", "released", "switched", "lost"}
_NOT_RUN = {"parked", "claimed"}

_LEFT = f"""
ls -A /var/lib/migrrdma/agent/outcomes /var/lib/migrrdma/agent/kept | grep -v : || :
find /tmp -maxdepth 1 -name 'migrrdma-images-*'
ls -A {fault_points.FOLDER} 2>/dev/null || :
find /run/migrrdma/agent -name 'resume-*'
pgrep -xl 'criu|runc|migrrdma-runti' || :
"""


def impatient(node: Shell, **deadlines: float) -> None:
    """Have a node's agent wait for nobody for long, and be started again at once when it has been killed."""
    lines = [f"{name} = {seconds}" for name, seconds in (IMPATIENT | deadlines).items()]
    text = "\n".join(["[deadlines]", *lines, ""])
    node.run("tee", "/etc/migrrdma/agent.toml", stdin=text.encode())
    folder = "/etc/systemd/system/migrrdma-agent.service.d"
    node.run("mkdir", "-p", folder)
    node.run("tee", f"{folder}/killed-often.conf", stdin=_SERVICE.encode())
    node.sh("systemctl daemon-reload; systemctl restart migrrdma-agent")


@dataclass
class Said:
    """A command that failed, and what it said."""

    what: str
    reason: str


@dataclass
class StruckPair:
    """The client, which moves between two nodes, and the server on the third."""

    rack: FastRack
    by_docker: bool = False
    """Whether the client is Docker's, and moved by docker's commands; else the runtime's."""
    staged: bool = False
    """Whether these restore it by a plain ``docker start``."""
    client: RuntimeContainer | DockerContainer = field(init=False)
    server: RuntimeContainer = field(init=False)
    said: list[Said] = field(default_factory=list)
    _also: list[tuple[Node, str]] = field(default_factory=list)
    _failed: Node | None = None
    """The host whose power fails in this case."""

    def __post_init__(self) -> None:
        """Not started yet."""
        docker_client, docker_server = workload.pair(
            self.rack.shell(SRC), self.rack.shell(PEER), "-q", "2", "-e"
        )
        self.client = (
            DockerContainer(docker_client, self.staged)
            if self.by_docker
            else self._container(SRC, "client", "10.78.0.160", docker_client.command)
        )
        self.server = self._container(PEER, "server", "10.78.0.161", docker_server.command)

    def _container(self, node: Node, name: str, address: str, command: Any) -> RuntimeContainer:
        words = [word.replace(workload.IN_CONTAINER, "/mnt") for word in command]
        binds = [(workload.ON_NODE, "/mnt")]
        return RuntimeContainer(self.rack.shell(node), name, address, words, binds)

    # --- the life of the two -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin anew: whatever was there is removed."""
        for node in NODES:
            self.rack.heal(node)
            self.rack.shell(node).sh(_FORGET)
        self.remove()
        for node in NODES:
            self.rack.devices.daemon.control.set(node.name, "latency", LATENCY_NS)
        self.client = self.client.on(self.rack.shell(SRC))
        for node in (SRC, DST):
            self.client.on(self.rack.shell(node)).prepare()
        self.server.prepare().run()
        self.client.run()
        self.client.wait_for_line(GOES_ON)

    def remove(self) -> None:
        """End both, wherever they are."""
        for node in (SRC, DST):
            self.client.on(self.rack.shell(node)).remove()
        self.server.remove()

    def stop(self) -> None:
        """Have both come to their end, and see what they found."""
        self.server.shell.sh("pkill -TERM -x integrity")
        for end in (self.server, self.client):
            end.wait_for_line("^integrity: (ok|FAILED)")
            verdict = workload.judge(end.lines())
            assert verdict.ok, f"{end.name}: {verdict.text}"

    # --- a case -------------------------------------------------------------------------------------------

    @property
    def here(self) -> Node:
        """Where the client is."""
        return self.client.shell.node

    @property
    def there(self) -> Node:
        """Where it would move."""
        return DST if self.here is SRC else SRC

    def play(self, case: Case) -> bool:
        """Move it, being struck; in the end both ends go on. Whether they do: a person, or a host's end, ends them."""
        node = {Side.SOURCE: self.here, Side.DESTINATION: self.there, Side.PARTNER: PEER}[case.reached.side]
        ends = case.reached.course is Course.ABANDONED or case.ends_an_end
        blows = Blows(self.rack, node, case)
        return self._play(case.reached.course, blows, node if case.blow is Blow.POWER else None, ends=ends)

    def play_at_some_time(self, node: Node, blow: Blow, victim: str, seconds: float) -> bool:
        """Move it; so many seconds later something strikes on a node."""
        blows = AtSomeTime(self.rack, node, blow, victim, seconds)
        failed = node if blow is Blow.POWER else None
        return self._play(Course.MOVE, blows, failed, ends=failed is PEER)

    def _play(self, course: Course, blows: Blows, failed: Node | None, *, ends: bool) -> bool:
        self.said = []
        self._failed = failed
        there = self.there
        with self._configured_for(course), blows:
            getattr(self, f"_{course.name.lower()}")()
            self._wait("the point to be reached", lambda: blows.has_struck)
        self._disarm()
        self._wait_for_agents()
        self._restore_what_waits(there)
        return self.judge(failed, ends=ends)

    def _move(self) -> None:
        there = self.there
        self._try("checkpoint", self.client.checkpoint)
        self._restore_what_waits(there)

    _afterwards = _move

    @contextlib.contextmanager
    def _configured_for(self, course: Course) -> Iterator[None]:
        """Both hosts as the course wants them, from before anything strikes until all is over."""
        if course is not Course.AFTERWARDS:
            yield
            return
        for node in (SRC, DST):
            self.rack.shell(node).sh(_AFTERWARDS)
        try:
            yield
        finally:
            self._wait_for_agents()
            for node in (SRC, DST):
                self.rack.shell(node).sh(_AS_USUAL)

    def _undumped(self) -> None:
        self._arm(self.here, Action.RUNTIME_DUMP, "error")
        self._move()

    def _refused(self) -> None:
        self._arm(self.here, Action.TELL_PARK, "error")
        self._move()

    def _unrestored(self) -> None:
        self._arm(self.there, Action.RUNTIME_RESTORE, "error")
        self._move()

    def _unbuilt(self) -> None:
        self._arm(self.there, Action.TELL_REBUILD, "error")
        self._move()

    def _waiting(self) -> None:
        self._try("checkpoint", self.client.checkpoint)

    def _slow_switch(self) -> None:
        self._arm(self.there, Action.ASK_SWITCH, "delay", "1.2")
        self._move()

    def _abandoned(self) -> None:
        self._try("checkpoint", self.client.checkpoint)
        self._abandon()

    def _abandon(self) -> None:
        """Give the checkpoint up, as a person would who is told that it failed."""
        here = self.here
        shell = self.rack.shell(here)
        migration = self._last(here)["migration"]
        for _ in range(3):
            self._try("abandon", lambda: shell.run("migrrdma", "migration", "abandon", migration))
            self._wait_for_agents()
            if self._last(here)["state"] == "abandoned":
                assert not self._copies(SRC) + self._copies(DST), "what was given up runs"
                return

    def _adopted(self) -> None:
        """Its host comes back when it runs elsewhere, and cannot restore it any more; a person lets that host go."""
        here, there = self.here, self.there
        source, destination = self.rack.shell(here), self.rack.shell(there)
        self._try("checkpoint", self.client.checkpoint)
        migration = self._last(here, "source")["migration"]
        self._wait("the partner to hear of the dump", lambda: self._last(PEER).get("parked", False))
        source.sh("systemctl stop migrrdma-agent")
        try:
            self.client.remove()
            moved = self.client.carry_images(destination)
            adopt = ("migrrdma", "migration", "adopt", moved.images, "--fenced", here.name)
            deadline = time.monotonic() + IN_TIME_S
            while self._decided(there, migration) in ("", "adopting"):
                assert time.monotonic() < deadline, f"it cannot be adopted: {self.said}"
                self._try("adopt", lambda: destination.run(*adopt))
            destination.run(*adopt)  # struck before it had written the manifest: as often as one likes
            while self._decided(there, migration) != "done":
                assert time.monotonic() < deadline, f"it cannot be restored: {self.said}"
                moved.remove()
                self._try("restore", moved.restore_here)
                self._wait(
                    "the restore to end", lambda: self._decided(there, migration) not in ("", "committed")
                )
        finally:
            source.sh("systemctl start migrrdma-agent")
        self.client = moved
        self._wait("the source to be superseded", lambda: self._decided(here, migration) == "superseded")
        again, said = self.client.on(source), len(self.said)
        self._try("restore", again.restore_here)
        assert "is not this host's any more" in self.said[said].reason, self.said
        again.remove()
        self._try("abandon", lambda: source.run("migrrdma", "migration", "abandon", migration))

    def _decided(self, node: Node, migration: str) -> str:
        """How a migration stands at a node that decides about it; empty if it does not, or does not answer."""
        try:
            known = self._migrations(node)
        except RackError:
            return ""
        mine = [one["state"] for one in known if (one["migration"], one["role"]) == (migration, "source")]
        return str(mine[0]) if mine else ""

    def _unheard(self) -> None:
        here = self.here
        peer, source = self.rack.shell(PEER), self.rack.shell(here)
        impatient(peer, partner=2)
        try:
            self._arm(here, Action.STORE_SOURCE_DUMPING, "kill")
            source.sh(_STAYS_AWAY)
            self._try("checkpoint", self.client.checkpoint)
            self._wait("the partner to give up", lambda: self._last(PEER)["state"] == "lost")
        finally:
            source.sh(f"rm -r {_AWAY}; systemctl daemon-reload; systemctl start migrrdma-agent")
            impatient(peer)

    def _arm(self, node: Node, action: Action, *words: str) -> None:
        """Have something else go wrong, on the way to the point."""
        point = name_of(action, Moment.BEFORE)
        arm(self.rack, node, point, *words)
        self._also.append((node, point))

    def _disarm(self) -> None:
        """What was not reached, since the blow fell before it, must not strike at the next case."""
        for node, point in self._also:
            self.rack.shell(node).run("rm", "-f", f"{fault_points.FOLDER}/{point}")
        self._also.clear()

    def _try(self, what: str, act: Callable[[], Any]) -> None:
        """Do it; if it fails, keep what it says. It must end in time."""
        began = time.monotonic()
        try:
            act()
        except (RackError, NodeCommandError) as error:
            self.said.append(Said(what, str(error)))
        seconds = time.monotonic() - began
        assert seconds < IN_TIME_S, f"{what} took {seconds:.0f} s: {self.said}"

    def _restore_what_waits(self, there: Node) -> None:
        """Restore it as often as it takes: as an engine, which removes what a failed restore has left."""
        deadline = time.monotonic() + IN_TIME_S
        while self._waits():
            assert time.monotonic() < deadline, f"it cannot be restored: {self.said}"
            here = self.here
            if self._ended_with(here):
                self._abandon()
                return
            for copy in (self.client, self.client.on(self.rack.shell(there))):
                self._try("remove", copy.remove)  # on a node whose power has just failed there is nothing
            self._try("restore", lambda: self.client.restore(self.rack.shell(there)))
            self._wait_for_agents()
            if self._settled(here, {"committed"}) == "done":
                self.client = self.client.on(self.rack.shell(there))
                return

    def _ended_with(self, node: Node) -> bool:
        """Whether its images were in that host's memory when its power failed: Docker had not got them yet."""
        client = self.client
        return node is self._failed and isinstance(client, DockerContainer) and not client.has_images()

    def _waits(self) -> bool:
        """Whether it is in an image that nobody has restored."""
        self._wait_for_agents()
        return self._settled(self.here, {"suspending", "dumping", "committed"}) in _NOT_RUN

    def _settled(self, node: Node, passing: set[str]) -> str:
        """The state of the last migration that a node was the source of, once it is none that passes."""
        found = ""

        def is_settled() -> bool:
            nonlocal found
            if not self._answers(node):
                return False  # its power may fail just now
            found = self._last(node, "source").get("state", "")
            return found not in passing

        self._wait(
            f"the last migration of {node.name} to come out of {', '.join(sorted(passing))}",
            is_settled,
            self._unended_anywhere,
        )
        return found

    def _last(self, node: Node, role: str = "") -> dict[str, Any]:
        found = [one for one in self._migrations(node) if role in ("", one["role"])]
        return max(found, key=lambda one: one["created"], default={})

    def _migrations(self, node: Node) -> list[dict[str, Any]]:
        """What its agent knows; `RackError` if there is none that answers.

        As `migrrdma status --json`, from outside of the node: it is asked several times a second, and a process of the
        node's own for each would take the processor from what is tested.
        """
        init = self.rack.host(node).init()
        try:
            with socket.socket(socket.AF_UNIX) as agent:
                agent.settimeout(_STATUS_S)
                agent.connect(f"/proc/{init}/root{paths.RUN_DIR}/{paths.RUNTIME_SOCKET}")
                agent.sendall(b'{"op": "status"}\n')
                with agent.makefile() as lines:
                    said = next((line for line in lines if '"done"' in line), "")
        except OSError as error:
            raise RackError(f"{node.name}: the agent does not answer: {error}") from error
        if not said.endswith("\n"):
            raise RackError(f"{node.name}: the agent has not said how it stands")
        found: list[dict[str, Any]] = json.loads(said)["done"]["migrations"]
        return found

    def _wait_for_agents(self) -> None:
        for node in NODES:
            self._wait(f"the agent of {node.name} to answer", partial(self._answers, node))

    def _answers(self, node: Node) -> bool:
        try:
            self._migrations(node)
        except RackError:
            return False
        return True

    @staticmethod
    def _wait(what: str, condition: Callable[[], bool], look: Callable[[], Any] = str) -> None:
        """Wait until the condition holds; ``look`` says how it is instead."""

        def holds() -> bool:
            try:
                return condition()
            except RackError:
                return False  # it is struck just now, or about to start again

        deadline = time.monotonic() + IN_TIME_S
        while not holds():
            assert time.monotonic() < deadline, f"waited {IN_TIME_S:.0f} s for {what}: {look()}"
            time.sleep(0.1)  # agents' and nodes' states: nothing tells of them

    # --- the oracle ---------------------------------------------------------------------------------------

    def judge(self, failed: Node | None, *, ends: bool) -> bool:
        """Exactly one copy, both ends clean, nothing left behind, everything explained.

        ``failed``: a host whose power failed; what ran there has ended with it. ``ends``: an end has ended by what was
        done. Returns whether the pair lives.
        """
        for node in NODES:
            self._wait(
                f"every migration of {node.name} to end",
                partial(self._ended, node),
                partial(self._unended, node),
            )
        running = {node.name: self._copies(node) for node in (SRC, DST)}
        died = failed is not None and failed is self.here and not running[failed.name]
        if ends:
            assert sum(running.values()) <= 1, f"copies that run: {running}; {self.said}"
            self.remove()
            running = dict.fromkeys(running, 0)
        expected = 0 if died or ends else 1
        assert sum(running.values()) == expected, f"copies that run: {running}; {self.said}"
        if expected:
            assert running[self.here.name] == 1, f"it runs elsewhere than it should: {running}; {self.said}"
            both = [(end, len(end.lines())) for end in (self.client, self.server)]
            for end, before in both:
                end.wait_for_line(GOES_ON, IN_TIME_S, after=before)
                broken = [line for line in end.lines() if _VERDICT.match(line)]
                assert not broken, f"{end.name}: {broken}; {self.said}"
        for node in NODES:
            self._wait(
                f"nothing to be left on {node.name}", partial(self._is_clean, node), partial(self._left, node)
            )
        for one in self.said:
            assert len(one.reason) > 40, one
            assert "Traceback" not in one.reason and "internal error" not in one.reason, one
        return bool(expected)

    def _ended(self, node: Node) -> bool:
        return self._answers(node) and not self._unended(node)

    def _unended(self, node: Node) -> list[dict[str, Any]]:
        return [one for one in self._migrations(node) if one["state"] not in _FINAL or one["waiting_for"]]

    def _unended_anywhere(self) -> str:
        """What is waited for where, and who has said what so far."""
        waits = {one.name: self._unended(one) if self._answers(one) else "no answer" for one in NODES}
        return f"{waits}; {self.said}"

    def _is_clean(self, node: Node) -> bool:
        return not self._left(node)

    def _copies(self, node: Node) -> int:
        """Processes of the client that are there and are no zombies."""
        seen = self.rack.shell(node).sh("ps -eo stat=,comm= | grep -c '^[^Z].* integrity$' || :").stdout
        return int(seen)

    def _left(self, node: Node) -> list[str]:
        """What nobody needs any more: files, processes, queue pairs."""
        found = self.rack.shell(node).sh(_LEFT).stdout.split("\n")
        queue_pairs = self.rack.devices.daemon.control.count(node.name, "qps")
        if node.name not in (self.here.name, PEER.name) and queue_pairs:
            found.append(f"{queue_pairs} queue pairs")
        return [one for one in found if one.strip()]
