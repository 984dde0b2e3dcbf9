"""Moves of a container between the hosts of a cluster, driven as the runtimes on both hosts would."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from cluster import Cluster, Host, ends, hexadecimal
from guest_process import PATIENT_S, GuestProcess

from migrrdma_runtime.base.errors import MigrRDMAError
from migrrdma_runtime.wire import runtime_client


async def _answer(reader: asyncio.StreamReader) -> Any:
    """The last line that answers a request; an empty one if the agent has ended."""
    while line := await reader.readline():
        if (answer := json.loads(line)).keys() & {"done", "error"}:
            return answer
    return {}


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
    heard: list[Any] = field(default_factory=list)
    """What the agent has told whoever held the restored process."""
    goes_on: bool = True
    """Whether CRIU lets go what was held, once it may; else it finds one that has died, and ends all."""
    before_it_goes_on: Callable[[], Awaitable[None]] | None = None
    restored_faults: dict[str, str] = field(default_factory=dict)
    """What the restored process answers wrongly, once."""
    restored_spec: dict[str, Any] = field(default_factory=dict)
    """What else the restored process holds."""

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

    async def checkpoint(
        self, *, succeeded: bool = True, leave_running: bool = False, move: str = "", only_for: str = ""
    ) -> Any:
        """What the runtime does of a checkpoint; ``succeeded``: how the dump goes.

        ``move``: the one whose step it is, of which the processes stay, to be restored by the agent ``only_for``.
        """

        async def dump(ready: Any) -> None:
            self.document = ready["manifest"]
            self.image = (await self.mover.show())["image"]
            if succeeded and not leave_running and not move:
                await self.mover.kill()

        return await self._drive(
            self.src,
            lambda agent: agent.checkpoint(
                self.container, leave_running=leave_running, move=move, only_for=only_for
            ),
            lambda ready: ready["migration"],
            dump,
            succeeded,
        )

    async def restore(
        self,
        host: Host | None = None,
        *,
        succeeded: bool = True,
        held: bool = False,
        dies: Callable[[], Awaitable[None]] | None = None,
    ) -> Any:
        """What the runtime does of a restore; what it has restored it kills when the agent says no.

        ``held``: CRIU's plugin holds it until it is committed, and kills it if it never will be. ``dies``: what comes
        when it hears the decision, and is its and the processes' end before it has let them go.
        """
        host = host or self.dst

        async def start(_: Any) -> None:
            if succeeded:
                await self.is_restored(host)
            if held:
                self.heard = await self.hold(host, dies=dies)
                if ("error" in self.heard[-1] or dies is not None) and self.restored is not None:
                    await self.restored.kill()

        try:
            return await self._drive(
                host,
                lambda agent: agent.restore(self.lands_in, self.document),
                str,
                start,
                succeeded and dies is None,
            )
        except MigrRDMAError:
            if self.restored is not None:
                await self.restored.kill()
                self.restored = None
            raise

    async def is_restored(self, host: Host | None = None) -> None:
        """Have the process there, as CRIU makes it."""
        host = host or self.dst
        count = len(self.document["partners"][0]["connections"])
        self.restored = await self.cluster.guest(
            host,
            self.lands_in,
            self.mover.name,
            self.image or ends(self.src, 0x11, self.peer, 0x21, count),
            state=4,
            gid=hexadecimal(host.gid),
            faults=self.restored_faults,
            **self.restored_spec,
        )
        self.where = host

    async def say(self, host: Host, operation: str, **members: Any) -> None:
        """What CRIU's plugin says on a connection of its own."""
        reader, writer = await asyncio.open_unix_connection(str(host.config.runtime_socket))
        request = {
            "op": operation,
            "migration": self.document["migration"],
            "runtime": os.getpid(),
            **members,
        }
        writer.write(json.dumps(request).encode() + b"\n")
        await _answer(reader)
        writer.close()

    async def hold(
        self, host: Host, runtime: int = 0, dies: Callable[[], Awaitable[None]] | None = None
    ) -> list[Any]:
        """What CRIU's plugin does: say that it holds what is restored, hear the lines up to the decision, and let go.

        Again, of an agent that is restarted meanwhile. ``runtime``: who has begun the restore, if not this process.
        """
        request = {
            "op": "standing",
            "migration": self.document["migration"],
            "runtime": runtime or os.getpid(),
        }
        heard: list[Any] = []
        async with asyncio.timeout(PATIENT_S):
            while not heard or not heard[-1].keys() & {"done", "error"}:
                await host.alive.wait()
                try:
                    reader, writer = await asyncio.open_unix_connection(str(host.config.runtime_socket))
                except OSError:
                    await asyncio.sleep(0.02)  # its socket comes a moment after
                    continue
                writer.write(json.dumps(request).encode() + b"\n")
                while line := await reader.readline():
                    heard.append(json.loads(line))
                    if heard[-1].keys() & {"done", "error"}:
                        break
                if dies is not None:
                    await dies()
                elif heard and "done" in heard[-1]:
                    writer.write(json.dumps(request | {"op": "letting_go"}).encode() + b"\n")
                    heard[-1] = await _answer(reader)
                    if "done" in heard[-1]:
                        if self.before_it_goes_on is not None:
                            await self.before_it_goes_on()
                        last = request | {"op": "gone_on", "succeeded": self.goes_on}
                        writer.write(json.dumps(last).encode() + b"\n")
                        await _answer(reader)
                writer.close()
        return heard

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
        assert {qp["sgid"] for qp in (await self.restored.show())["qps"]} == {hexadecimal(self.where.gid)}

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
