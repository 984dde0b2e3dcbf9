"""Agents on loopback addresses, with certificates of one authority, and fake guests in their own processes.

Everything but the guests and the containers' bookkeeping is the real thing: TLS, gRPC, unix sockets, SQLite,
the client that the OCI runtime uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fake_guest
from free_port import free_port
from guest_process import PATIENT_S, GuestProcess
from lossy_transport import LossyTransport
from sysfs import make_sysfs

from migrrdma_runtime.agent.daemon import Daemon
from migrrdma_runtime.agent.local.containers import Containers, Process
from migrrdma_runtime.agent.local.devices import Devices
from migrrdma_runtime.agent.local.memory_map import MemoryMap
from migrrdma_runtime.agent.local.resources import Resources
from migrrdma_runtime.agent.peers import certificates
from migrrdma_runtime.agent.peers.agent_config import AgentConfig, Deadlines, TLSFiles
from migrrdma_runtime.agent.peers.transport import Routed
from migrrdma_runtime.agent.roles.this_agent import ThisAgent
from migrrdma_runtime.base import gids, paths
from migrrdma_runtime.wire import runtime_client

BUILD_ID = "ab" * 20
# What is answered at once is waited for as long as a busy machine may need: a test of silence asks for less.
SHORT = Deadlines(guest=30, peer=30, drain=30, reconnect=5, doubt=1.5, partner=60, turn=1, ask=0.1)


class Killed(BaseException):
    """The agent's process has died at this point: nothing of it runs any more, not even its clean-up."""


class FakeContainers(Containers):
    """Who is in which container, as the test says."""

    def __init__(self) -> None:
        super().__init__(Path("/nonexistent"))
        self.members: dict[int, str] = {}
        self.everybody_else = ""
        self.strangers: list[tuple[str, Process]] = []
        self.heirs: dict[int, int] = {}
        """Processes that have inherited all that they have open, and from whom."""
        self.maps: dict[int, MemoryMap] = {}

    def container_of(self, pid: int) -> str:
        return self.members.get(pid, self.everybody_else)

    async def holders(self, container: str) -> list[Process]:
        return [process for where, process in self.strangers if where == container]

    def only_inherits(self, pid: int, others: Iterable[int]) -> bool:
        return self.heirs.get(pid) in set(others)

    def memory_map(self, pid: int) -> MemoryMap | None:
        return self.maps.get(pid)


class FakeResources(Resources):
    """What the kernel says of queue pairs, as the test says."""

    def __init__(self, containers: Containers, devices: Devices) -> None:
        super().__init__(containers, devices)
        self.pairs: list[dict[str, Any]] | None = None
        """In the words of ``rdma -j resource show qp``; None: it cannot be asked."""

    async def _ask(self) -> bytes:
        if self.pairs is None:
            raise OSError("Protocol not supported")
        return json.dumps(self.pairs).encode()


@dataclass
class Host:
    """A host with an agent."""

    name: str
    address: str
    config: AgentConfig
    containers: FakeContainers
    devices: Devices
    resources: FakeResources
    daemon: Daemon | None = None
    kill_at: str = ""
    steps: list[str] = field(default_factory=list)
    killed: asyncio.Event = field(default_factory=asyncio.Event)
    alive: asyncio.Event = field(default_factory=asyncio.Event)
    on_fault_point: Callable[[str], None] = lambda _: None
    runtime_patience: float = PATIENT_S
    """How long a runtime waits for an agent that is gone to come back."""

    @property
    def gid(self) -> str:
        return gids.from_address(ipaddress.ip_address(self.address))

    def guest_socket(self, container: str) -> Path:
        """What the container's processes connect to: its own, if the runtime has made it a directory."""
        own = self.config.run_dir / paths.CONTAINERS_DIR / container / paths.GUEST_SOCKET_DIR
        return own / paths.GUEST_SOCKET if own.exists() else self.config.guest_socket

    @property
    def agent(self) -> ThisAgent:
        """The agent that runs on it now."""
        assert self.daemon is not None
        return self.daemon.agent

    async def start(self) -> Daemon:
        self.killed.clear()
        self.daemon = Daemon(
            self.config, self.containers, self.devices, self._at_fault_point, resources=self.resources
        )
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
        return runtime_client.Agent(str(self.config.runtime_socket), patience=self.runtime_patience)

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
        self.late_comers = False
        """Of the hosts that are prepared from now on."""
        self.port = free_port()
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
            late_comers=self.late_comers,
        )
        devices = Devices(make_sysfs(home / "sysfs", gids.from_address(ipaddress.ip_address(address))))
        containers = FakeContainers()
        host = Host(name, address, config, containers, devices, FakeResources(containers, devices))
        self.hosts[name] = host
        return host

    async def guest(
        self, host: Host, container: str, name: str, qps: list[dict[str, Any]], **more: Any
    ) -> GuestProcess:
        """A process with these connections on a host, connected to its agent."""
        spec = {
            "socket": str(host.guest_socket(container)),
            "name": name,
            "build_id": BUILD_ID,
            "device": "rxe0",
            "contexts": sorted({qp["context"] for qp in qps}) or [1],
            "qps": qps,
            "offset": 0x3000,
            "gid": hexadecimal(host.gid),
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

    def impatient_hosts(self, **deadlines: float) -> None:
        """Give the hosts that are made from now on other deadlines."""
        self.deadlines = replace(self.deadlines, **deadlines)

    def impatient(self, host: Host, **deadlines: float) -> None:
        """Give a host's next agent other deadlines."""
        host.config = replace(host.config, deadlines=replace(host.config.deadlines, **deadlines))


def play(directory: Path, scenario: Callable[[Cluster], Awaitable[None]]) -> None:
    """Run a scenario on a cluster that is taken down afterwards."""

    async def run() -> None:
        cluster = Cluster(directory)
        try:
            await scenario(cluster)
        finally:
            await cluster.close()

    asyncio.run(run())


def ends(here: Host, qpn: int, there: Host, dest: int, count: int) -> list[dict[str, Any]]:
    """The queue pairs of one end of ``count`` connections."""
    return [
        {
            "context": 1,
            "vqpn": qpn + i,
            "pqpn": qpn + i,
            "dest_pqpn": dest + i,
            "sgid": hexadecimal(here.gid),
            "dgid": hexadecimal(there.gid),
        }
        for i in range(count)
    ]


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


def hexadecimal(gid: str) -> str:
    """A GID as the fake guest is told of it."""
    return gids.packed(gid).hex()
