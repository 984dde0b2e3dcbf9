"""Agents on loopback addresses, with certificates of one authority, and fake guests in their own processes.

Everything but the guests and the containers' bookkeeping is the real thing: TLS, gRPC, unix sockets, SQLite,
the client that the OCI runtime uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fake_guest
from lossy_transport import LossyTransport

from migrrdma_runtime.agent.daemon import Daemon
from migrrdma_runtime.agent.local.containers import Containers, Process
from migrrdma_runtime.agent.local.devices import Devices
from migrrdma_runtime.agent.peers import certificates
from migrrdma_runtime.agent.peers.agent_config import AgentConfig, Deadlines, TLSFiles
from migrrdma_runtime.agent.peers.transport import Routed
from migrrdma_runtime.agent.roles.this_agent import ThisAgent
from migrrdma_runtime.base import gids, paths
from migrrdma_runtime.base.errors import MigrRDMAError
from migrrdma_runtime.wire import runtime_client

BUILD_ID = "ab" * 20
PATIENT_S = 20
"""For anything that should happen at once: a guard against hanging, not a measure."""

SHORT = Deadlines(guest=2, peer=2, drain=2, reconnect=5, doubt=1.5, partner=60, ask=0.1)


class Killed(BaseException):
    """The agent's process has died at this point: nothing of it runs any more, not even its clean-up."""


class FakeContainers(Containers):
    """Who is in which container, as the test says."""

    def __init__(self) -> None:
        super().__init__(Path("/nonexistent"))
        self.members: dict[int, str] = {}
        self.everybody_else = ""
        self.strangers: list[tuple[str, Process]] = []

    def container_of(self, pid: int) -> str:
        return self.members.get(pid, self.everybody_else)

    def holders(self, container: str) -> list[Process]:
        return [process for where, process in self.strangers if where == container]


class GuestProcess:
    """A fake guest."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self.name = name
        self.events: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()
        self._reader = asyncio.ensure_future(self._read())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    @property
    def asked(self) -> list[str]:
        """What the agent has asked of it, in order."""
        return [event["got"] for event in self.events if "got" in event]

    async def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENT_S), self._changed:
            await self._changed.wait_for(condition)

    async def until_asked(self, name: str) -> None:
        await self.until(lambda: name in self.asked)

    async def show(self) -> dict[str, Any]:
        count = len(self._shown())
        await self.tell("show")
        await self.until(lambda: len(self._shown()) > count)
        return self._shown()[-1]

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reader

    def _shown(self) -> list[dict[str, Any]]:
        return [event["shown"] for event in self.events if "shown" in event]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            async with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()


@dataclass
class Host:
    """A host with an agent."""

    name: str
    address: str
    config: AgentConfig
    containers: FakeContainers
    devices: Devices
    daemon: Daemon | None = None
    kill_at: str = ""
    steps: list[str] = field(default_factory=list)
    killed: asyncio.Event = field(default_factory=asyncio.Event)
    alive: asyncio.Event = field(default_factory=asyncio.Event)
    on_fault_point: Callable[[str], None] = lambda _: None

    @property
    def gid(self) -> str:
        return gids.from_address(ipaddress.ip_address(self.address))

    @property
    def agent(self) -> ThisAgent:
        """The agent that runs on it now."""
        assert self.daemon is not None
        return self.daemon.agent

    async def start(self) -> Daemon:
        self.killed.clear()
        self.daemon = Daemon(self.config, self.containers, self.devices, self._at_fault_point)
        await self.daemon.start()
        self.alive.set()
        return self.daemon

    async def stop(self) -> None:
        if self.daemon is not None:
            await self.daemon.stop()
            self.daemon = None

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def connect(self) -> runtime_client.Agent:
        return runtime_client.Agent(str(self.config.runtime_socket), patience=PATIENT_S)

    def state(self, migration: str = "") -> dict[str, str]:
        """Role and state of the migration that this agent knows of."""
        records = self.agent.store.every()
        return {one.role.value: one.state.value for one in records if migration in ("", one.id)}

    def _at_fault_point(self, step: str) -> None:
        self.steps.append(step)
        self.on_fault_point(step)
        if self.kill_at == step:
            self.kill_at = ""
            self.killed.set()
            self.alive.clear()
            raise Killed(step)


class Cluster:
    """Some hosts, and the guests on them."""

    def __init__(self, directory: Path, deadlines: Deadlines = SHORT) -> None:
        self.directory = directory
        self.deadlines = deadlines
        self.port = _free_port()
        self.hosts: dict[str, Host] = {}
        self.guests: list[GuestProcess] = []
        certificates.make_ca(directory / "ca", "test")

    async def host(self, name: str, number: int) -> Host:
        """A host of that name, its agent running."""
        host = self.prepare(name, number)
        await host.start()
        return host

    def prepare(self, name: str, number: int) -> Host:
        address, home = f"127.0.0.{number}", self.directory / name
        certificates.issue(self.directory / "ca", name, [address], home / "tls")
        library = home / "guest" / BUILD_ID / paths.GUEST_LIBRARY
        library.parent.mkdir(parents=True)
        library.touch()
        config = AgentConfig(
            run_dir=home / "run",
            guest_dir=home / "guest",
            state_dir=home / "state",
            port=self.port,
            tls=TLSFiles(home / "tls/ca.crt", home / "tls/agent.crt", home / "tls/agent.key"),
            deadlines=self.deadlines,
        )
        devices = Devices(make_sysfs(home / "sysfs", gids.from_address(ipaddress.ip_address(address))))
        host = Host(name, address, config, FakeContainers(), devices)
        self.hosts[name] = host
        return host

    async def guest(
        self, host: Host, container: str, name: str, qps: list[dict[str, Any]], **more: Any
    ) -> GuestProcess:
        """A process with these connections on a host, connected to its agent."""
        spec = {
            "socket": str(host.config.guest_socket),
            "name": name,
            "build_id": BUILD_ID,
            "device": "rxe0",
            "contexts": sorted({qp["context"] for qp in qps}) or [1],
            "qps": qps,
            "offset": 0x3000,
            "gid": _hex(host.gid),
            "rkeys": [0x100, 0x200],
            "reconnects": True,
            **more,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(fake_guest.__file__)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        guest = GuestProcess(process, name)
        self.guests.append(guest)
        host.containers.members[guest.pid] = container
        await guest.tell(json.dumps(spec))
        await guest.until(lambda: {"welcome": True} in guest.events)
        return guest

    async def pair(self, src: Host, peer: Host, count: int = 2) -> tuple[GuestProcess, GuestProcess]:
        """A process in container c1 on one host, one in p1 on the other, and connections between them."""
        mover = await self.guest(src, "c1", "a" * 16, ends(src, 0x11, peer, 0x21, count))
        partner = await self.guest(peer, "p1", "b" * 16, ends(peer, 0x21, src, 0x11, count))
        return mover, partner

    async def close(self) -> None:
        for guest in self.guests:
            await guest.kill()
        for host in self.hosts.values():
            await host.stop()

    def impatient(self, host: Host, **deadlines: float) -> None:
        """Give a host's next agent other deadlines."""
        host.config = replace(host.config, deadlines=replace(host.config.deadlines, **deadlines))


@dataclass
class Move:
    """A container's move, with a partner on a third host, as the runtimes on both hosts drive it."""

    cluster: Cluster
    src: Host
    dst: Host
    peer: Host
    mover: GuestProcess
    partner: GuestProcess
    container: str = "c1"
    lands_in: str = "c2"
    document: Any = None
    image: Any = None
    restored: GuestProcess | None = None
    where: Host | None = None

    @classmethod
    async def begin(cls, cluster: Cluster, count: int = 2) -> Move:
        src, dst, peer = [
            await cluster.host(name, number) for number, name in enumerate(("src", "dst", "peer"), 2)
        ]
        return cls(cluster, src, dst, peer, *await cluster.pair(src, peer, count))

    def onward(self, dst: Host) -> Move:
        """The next move of the container that was restored."""
        assert self.restored is not None and self.where is not None
        return Move(
            self.cluster, self.where, dst, self.peer, self.restored, self.partner,
            container=self.lands_in, lands_in=self.lands_in + "+",
        )  # fmt: skip

    def other_end(self, dst: Host, container: str = "p1") -> Move:
        """A move of the partner, whose partner is the container that was restored."""
        assert self.restored is not None and self.where is not None
        return Move(
            self.cluster, self.peer, dst, self.where, self.partner, self.restored,
            container=container, lands_in=container + "+",
        )  # fmt: skip

    async def checkpoint(self, *, succeeded: bool = True, leave_running: bool = False) -> Any:
        """What the runtime does of a checkpoint; ``succeeded``: how the dump goes."""

        async def dump(ready: Any) -> None:
            self.document = ready["manifest"]
            self.image = (await self.mover.show())["image"]
            if succeeded and not leave_running:
                await self.mover.kill()

        return await self._drive(
            self.src,
            lambda agent: agent.checkpoint(self.container, leave_running=leave_running),
            lambda ready: ready["migration"],
            dump,
            succeeded,
        )

    async def restore(self, host: Host | None = None, *, succeeded: bool = True) -> Any:
        """What the runtime does of a restore; what it has restored it kills when the agent says no."""
        host = host or self.dst

        async def start(_: Any) -> None:
            if succeeded:
                count = len(self.document["partners"][0]["connections"])
                qps = self.image or ends(self.src, 0x11, self.peer, 0x21, count)
                self.restored = await self.cluster.guest(
                    host, self.lands_in, self.mover.name, qps, state=4, gid=_hex(host.gid)
                )
                self.where = host

        try:
            return await self._drive(
                host, lambda agent: agent.restore(self.lands_in, self.document), str, start, succeeded
            )
        except MigrRDMAError:
            if self.restored is not None:
                await self.restored.kill()
                self.restored = None
            raise

    async def both_go_on_as_before(self) -> None:
        """Wait until both ends run on the connections they had."""
        await self._connected(self.mover, self.partner, 0x11, 0x21)

    async def both_go_on_after_the_move(self) -> None:
        """Wait until both ends run on the new connections, at one place."""
        assert self.restored is not None
        await self._connected(self.restored, self.partner, 0x11 + 0x3000, 0x21 + 0x7000)

    async def both_go_on_anew(self) -> None:
        """Wait until both ends run on connections that were not there before, from where the container is."""
        assert self.restored is not None and self.where is not None
        [old] = self.image[:1]
        await self._connected(self.restored, self.partner, old["pqpn"] + 0x3000, old["dest_pqpn"] + 0x7000)
        assert {qp["sgid"] for qp in (await self.restored.show())["qps"]} == {_hex(self.where.gid)}

    async def _connected(self, one: GuestProcess, other: GuestProcess, qpn: int, dest: int) -> None:
        async def are_connected() -> bool:
            mine, theirs = await one.show(), await other.show()
            assert [qp["pqpn"] for qp in mine["qps"]][:1] in ([qpn], [qpn - 0x3000], [0x11]), mine
            return (
                mine["state"] == theirs["state"] == 1
                and mine["qps"][0]["pqpn"] == qpn
                and theirs["qps"][0]["pqpn"] == dest
                and all(
                    (a["sgid"], a["pqpn"], a["dgid"], a["dest_pqpn"])
                    == (b["dgid"], b["dest_pqpn"], b["sgid"], b["pqpn"])
                    and (a["psns"] or [0, 0]) == (b["psns"] or [0, 0])[::-1]
                    and not a["quiesced"]
                    and not b["quiesced"]
                    for a, b in zip(mine["qps"], theirs["qps"], strict=True)
                )
            )

        async with asyncio.timeout(PATIENT_S):
            while not await are_connected():
                await asyncio.sleep(0.02)  # two processes' states: there is no one event to wait for

    async def _are_there(self, *guests: GuestProcess) -> None:
        """Wait until these, if they live, are connected to their agents, which may just have started."""
        for host in self.cluster.hosts.values():
            here = [one for one in guests if one.is_alive and one.pid in host.containers.members]
            if host.daemon is not None and host.alive.is_set():
                await host.daemon.agent.guests.have_pids({one.pid for one in here})

    async def _drive(
        self, host: Host, ask: Any, name: Callable[[Any], str], act: Any, succeeded: bool
    ) -> Any:
        def with_agent(function: Callable[[runtime_client.Agent], Any]) -> Any:
            return asyncio.to_thread(function, agent)

        async with asyncio.timeout(PATIENT_S):
            await host.alive.wait()
        await self._are_there(self.partner, *([self.mover] if host is self.src else []))
        agent = host.connect()
        with agent:
            ready = await with_agent(ask)
            if ready is None:
                return None
            await act(ready)
            return await with_agent(lambda one: one.report(name(ready), succeeded=succeeded))


@contextlib.asynccontextmanager
async def keep_alive(*hosts: Host) -> AsyncIterator[None]:
    """Start a host's agent again whenever it is killed, as systemd would."""
    enough = asyncio.Event()

    async def watch(host: Host) -> None:
        end = asyncio.ensure_future(enough.wait())
        while not enough.is_set():
            killed = asyncio.ensure_future(host.killed.wait())
            await asyncio.wait((killed, end), return_when=asyncio.FIRST_COMPLETED)
            killed.cancel()
            if host.killed.is_set():
                await host.restart()

    watchers = [asyncio.ensure_future(watch(host)) for host in hosts]
    try:
        yield
    finally:
        enough.set()
        await asyncio.gather(*watchers)


def ends(here: Host, qpn: int, there: Host, dest: int, count: int) -> list[dict[str, Any]]:
    """The queue pairs of one end of ``count`` connections."""
    return [
        {
            "context": 1,
            "vqpn": qpn + i,
            "pqpn": qpn + i,
            "dest_pqpn": dest + i,
            "sgid": _hex(here.gid),
            "dgid": _hex(there.gid),
        }
        for i in range(count)
    ]


def make_sysfs(root: Path, gid: str, device: str = "rxe0") -> Path:
    """``/sys/class/infiniband`` with one device: a link-local GID and this one."""
    port = root / device / "ports" / "1"
    (port / "gids").mkdir(parents=True)
    (port / "gid_attrs" / "types").mkdir(parents=True)
    link_local = gids.from_address(ipaddress.ip_address("fe80::1"))
    for index, value in enumerate((link_local, gid, "0000:" * 7 + "0000")):
        (port / "gids" / str(index)).write_text(value + "\n")
        (port / "gid_attrs" / "types" / str(index)).write_text("RoCE v2\n")
    return root


@contextlib.contextmanager
def dropping(host: Host, *names: str, reply: bool) -> Iterator[list[str]]:
    """Lose what a host asks of other agents under these names: the request, or the reply to it."""
    transport = host.agent.transport
    assert isinstance(transport, Routed)
    real = transport.others
    lossy = LossyTransport(real, names, reply=reply)
    transport.others = lossy
    try:
        yield lossy.lost
    finally:
        transport.others = real


def _hex(gid: str) -> str:
    return gids.packed(gid).hex()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
