"""The agent as a whole: its parts put together, started, and stopped without anybody noticing."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from migrrdma_runtime import __version__
from migrrdma_runtime.agent.local.containers import Containers
from migrrdma_runtime.agent.local.devices import Devices
from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.guest_objects import GuestState, Question
from migrrdma_runtime.agent.local.local_sockets import LocalSockets
from migrrdma_runtime.agent.local.objections import MOST_SHOWN, Objections
from migrrdma_runtime.agent.local.resources import Resources
from migrrdma_runtime.agent.local.runtime_api import Runtime
from migrrdma_runtime.agent.local.strangers import Strangers, some_of_each_container
from migrrdma_runtime.agent.observe import loop_lag
from migrrdma_runtime.agent.observe.steps_log import StepsLog
from migrrdma_runtime.agent.peers import certificates
from migrrdma_runtime.agent.peers.agent_config import AgentConfig, host_of, join
from migrrdma_runtime.agent.peers.certificates import Identity
from migrrdma_runtime.agent.peers.grpc_transport import GrpcServer, GrpcTransport
from migrrdma_runtime.agent.peers.transport import Handler, Handlers, InProcess, Routed
from migrrdma_runtime.agent.roles import outlook
from migrrdma_runtime.agent.roles.adoption import Adoption
from migrrdma_runtime.agent.roles.arbiter import Arbiter
from migrrdma_runtime.agent.roles.destination import Destination
from migrrdma_runtime.agent.roles.kept import Kept
from migrrdma_runtime.agent.roles.partner import Partner
from migrrdma_runtime.agent.roles.partners_arbiter import PartnersArbiter
from migrrdma_runtime.agent.roles.records import DestinationData, Record, SourceData
from migrrdma_runtime.agent.roles.source import MoveStep, Source
from migrrdma_runtime.agent.roles.states import Role, State
from migrrdma_runtime.agent.roles.store import Store
from migrrdma_runtime.agent.roles.telling import is_meant
from migrrdma_runtime.agent.roles.this_agent import ThisAgent
from migrrdma_runtime.agent.roles.whereabouts import Whereabouts
from migrrdma_runtime.base import fault_points
from migrrdma_runtime.base.errors import AgentError, MigrRDMAError
from migrrdma_runtime.wire import agent_messages
from migrrdma_runtime.wire.agent_messages import Contact, Message

if TYPE_CHECKING:
    from migrrdma_runtime.agent.observe.metrics import Metrics, Server

_log = logging.getLogger(__name__)

Operation = Callable[..., Awaitable[Message]]


class Daemon:
    """One agent. Starting it goes on where the last one stopped; stopping it changes nothing."""

    def __init__(
        self,
        config: AgentConfig,
        containers: Containers | None = None,
        devices: Devices | None = None,
        fault_point: Callable[[str], None] = lambda _: None,
        local: LocalSockets | None = None,
        resources: Resources | None = None,
    ) -> None:
        credentials = certificates.load(config.tls)
        self._local = local or LocalSockets(
            containers or Containers(config.run_dir), config.run_dir, answers=config.late_comers
        )
        self._addresses = certificates.listening(config.listen, credentials.identity, config.tls)
        identity = credentials.identity
        devices = devices or Devices()
        contact = Contact(identity.name, join(_advertised(self._addresses, identity), config.port))
        handlers: Handlers = {"hello": self._hello}
        self.agent = ThisAgent(
            config=config,
            identity=identity,
            contact=contact,
            store=Store(config.database, identity.name),
            guests=self._local.guests,
            containers=self._local.containers,
            devices=devices,
            resources=resources or Resources(self._local.containers, devices),
            transport=Routed(
                lambda address: address == contact.address or _is_own(address, identity, config.port),
                InProcess(identity, handlers),
                GrpcTransport(credentials),
            ),
            handlers=handlers,
            fault_point=fault_point,
        )
        self._source = Source(self.agent)
        self._destination = Destination(self.agent)
        self._partner = Partner(self.agent)
        self._arbiter = Arbiter(self.agent)
        self._adoption = Adoption(self.agent)
        PartnersArbiter(self.agent)
        for name, handler in handlers.items():
            handlers[name] = self._counted(name, _struck(name, handler))
        # No part of a migration: there is nothing to be struck.
        self._whereabouts = Whereabouts(self.agent)
        self._server = GrpcServer(credentials, handlers)
        self._metrics: Metrics | None = None
        self._metrics_server: Server | None = None
        self._watching: list[asyncio.Task[None]] = []
        self._kept = Kept(self.agent)
        self._objections = Objections()
        self._strangers = Strangers(
            self.agent.guests, self.agent.containers, self.agent.resources, self._source.has_parked
        )
        self.agent.store.watch(StepsLog().changed)
        self.agent.store.watch(self._kept.changed)

    @property
    def metrics_port(self) -> int | None:
        """Where metrics are, once they are."""
        return self._metrics_server.port if self._metrics_server is not None else None

    async def start(self) -> None:
        """Take up what the last agent left, then listen to everybody."""
        config = self.agent.config
        config.outcomes.mkdir(mode=0o700, exist_ok=True)
        config.kept.mkdir(mode=0o700, exist_ok=True)
        self._partner.recover()
        self._source.recover(self._local.api)
        self._destination.recover(self._local.api)
        self._kept.recover()
        # Before anything that was just begun goes on: it would ask guests that nobody has looked at.
        self._local.receive(self._connected, self._asked)
        await self._server.start(self._addresses, config.port)
        await self._local.listen()
        operations = {
            "checkpoint": self._checkpoint,
            "restore": self._restore,
            "report": self._late_report,
            "standing": self._hold,
            "letting_go": self._let_go,
            "gone_on": self._gone_on,
            "status": self._status,
            "objections": self._show_objections,
            "abandon": self._abandon,
            "adopt": self._adopt,
            "examine": self._examine,
            "move": self._move,
            "take_back": self._take_back,
        }
        self._local.serve({name: self._counted(name, one) for name, one in operations.items()})
        loop = asyncio.get_running_loop()
        self._watching = [loop.create_task(one) for one in (self._watch(), self._strangers.watch())]
        _log.info("agent %s listens on %s", self.agent.identity.name, ", ".join(self._addresses))

    async def stop(self) -> None:
        """Stop, leaving everything as it is: the next agent goes on."""
        for one in self._watching:
            one.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        if self._metrics_server is not None:
            await asyncio.to_thread(self._metrics_server.close)
        await self._objections.stop()
        await self._local.api.close()
        await self._server.stop()
        await self.agent.tasks.stop()
        await self.agent.guests.close()
        await self.agent.transport.close()
        self.agent.store.close()

    def _counted(self, name: str, operation: Operation) -> Operation:
        """An operation whose refusals are counted."""

        async def counted(*arguments: Any) -> Message:
            try:
                return await operation(*arguments)
            except MigrRDMAError as error:
                if self._metrics is not None:
                    self._metrics.refused(name, error)
                raise

        return counted

    async def _watch(self) -> None:
        """Offer metrics, if they are wanted, and look at the loop's lag."""
        if self.agent.config.metrics:
            self._metrics_server = await self._offer_metrics()
        await loop_lag.watch(self._late)

    def _late(self, lag: float) -> None:
        if self._metrics is not None:
            self._metrics.looked(lag, len(self.agent.guests.all()))

    async def _offer_metrics(self) -> Server | None:
        # Not at the start: a tenth of a second of imports that no guest and no migration waits for.
        try:
            module = await asyncio.to_thread(
                importlib.import_module, "migrrdma_runtime.agent.observe.metrics"
            )
        except ImportError as error:
            _log.warning("no metrics: %s is not installed (python3-prometheus-client)", error.name)
            return None
        store = self.agent.store
        self._metrics = module.Metrics(self.agent.identity.name, __version__, store.every())
        store.watch(self._metrics.changed)
        address = self.agent.config.metrics
        host, port = host_of(address), int(address.rpartition(":")[2])
        try:
            # In a thread: http.server looks up the name of its address.
            server: Server = await asyncio.to_thread(module.Server, self._metrics, (host, port))
        except OSError as error:
            _log.warning(
                "no metrics: cannot listen on %s: %s; set metrics in agent.toml", address, error.strerror
            )
            return None
        _log.info("metrics are at http://%s/metrics", join(host, server.port))
        return server

    async def _checkpoint(self, request: Message, runtime: Runtime) -> Message:
        self.agent.guests.listen_in(request["container"])
        step = MoveStep(request["move"], request["only_for"]) if request["move"] else None
        return await self._source.checkpoint(request["container"], request["leave_running"], runtime, step)

    async def _restore(self, request: Message, runtime: Runtime) -> Message:
        self.agent.guests.listen_in(request["container"])
        # A report that comes again, because the answer was not heard, waits for this to end.
        with self.agent.tasks.conducting(str(request["manifest"].get("migration"))):
            return await self._destination.restore(request["container"], request["manifest"], runtime)

    async def _late_report(self, request: Message, runtime: Runtime) -> Message:
        """Answer a report whose answer was lost with the last agent, from what the records say."""
        migration = request["migration"]
        if self._is_earlier(migration, runtime.process.pid):
            raise _another_has_begun(migration, runtime)
        await self.agent.tasks.decided(migration)
        restored = self.agent.store.find(migration, DestinationData)
        dumped = self.agent.store.find(migration, SourceData)
        known: list[Record[Any]] = [one for one in (restored, dumped) if one is not None]
        # A host may be both; the runtime that reports is then the one that began it, or the later report is meant.
        mine = [one for one in known if one.data.runtime.pid == runtime.process.pid] or known
        meant = max(mine, key=lambda one: one.updated, default=None)
        if meant is not None and meant.role is Role.DESTINATION:
            if meant.state in (State.COMMITTED, State.DONE):
                return self._destination.result(meant)
            runtime.released = meant.state is State.RELEASED
        elif meant is not None:
            undone = meant.state is State.UNDONE and not meant.data.left_running
            if not undone and meant.state not in (State.SUSPENDING, State.DUMPING):
                return self._source.result(meant)
        raise AgentError(
            f"migration {migration} was undone when the agent was restarted: what was dumped cannot be "
            "restored with its connections, and what was restored must not run"
        )

    def _is_earlier(self, migration: str, runtime: int) -> bool:
        """Whether this process has begun a restore that was given back, or another one could not have begun since."""
        restored = self.agent.store.find(migration, DestinationData)
        dumped = self.agent.store.find(migration, SourceData)
        is_of_the_dump = dumped is not None and dumped.data.runtime.pid == runtime
        return restored is not None and restored.data.runtime.pid != runtime and not is_of_the_dump

    async def _hold(self, request: Message, runtime: Runtime) -> Message:
        """Answer CRIU's plugin: done means that what it holds may go on."""
        migration = request["migration"]
        if self._is_earlier(migration, request["runtime"]):
            raise _another_has_begun(migration, runtime)
        if await self._destination.hold(migration, runtime):
            return {}
        await self.agent.tasks.decided(migration)
        record = self.agent.store.find(migration, DestinationData)
        if record is not None and record.state in (State.COMMITTED, State.DONE):
            return {}
        runtime.released = record is not None and record.state is State.RELEASED
        raise AgentError(
            f"the restore of migration {migration} was not committed: what was restored must not run"
        )

    async def _let_go(self, request: Message, runtime: Runtime) -> Message:
        """Answer CRIU's plugin: done means that what it holds is not given back any more, and may be let go."""
        if self._is_earlier(request["migration"], request["runtime"]):
            raise _another_has_begun(request["migration"], runtime)
        self._destination.let_go(request["migration"], runtime)
        return {}

    async def _gone_on(self, request: Message, _runtime: Runtime) -> Message:
        """Take CRIU's plugin's word on what it has let go; that of an earlier restore is not about this one."""
        if not self._is_earlier(request["migration"], request["runtime"]):
            self._destination.gone_on(request["migration"], request["succeeded"])
        return {}

    async def _abandon(self, request: Message, _runtime: Runtime) -> Message:
        """Give up the wait of one role; of several that wait here, the one that decides most."""
        migration, role = request["migration"], request["role"]
        ways: dict[Role, Callable[[str, bool], Coroutine[Any, Any, None]]] = {
            Role.SOURCE: self._arbiter.abandon,
            Role.DESTINATION: self._destination.abandon,
            Role.PARTNER: self._partner.abandon,
        }
        mine = {
            one.role: one
            for one in self.agent.store.every()
            if one.id == migration and role in ("", one.role.value)
        }
        # Without a record of it, the arbiter says so.
        chosen = next((one for one in ways if one in mine and not mine[one].is_settled), Role.SOURCE)
        await ways[Role(role) if role else chosen](migration, request["lost"])
        return {"role": role or chosen.value}

    async def _adopt(self, request: Message, _runtime: Runtime) -> Message:
        return await self._adoption.adopt(request["manifest"], request["fenced"])

    async def _examine(self, request: Message, _runtime: Runtime) -> Message:
        """What would refuse a checkpoint now, also at its partners; nothing is touched."""
        self.agent.guests.listen_in(request["container"])
        return await self._source.examine(request["container"])

    async def _move(self, request: Message, _runtime: Runtime) -> Message:
        """How it stands with the checkpoint that is a move's step, to whoever conducts that."""
        record = self._source.of_move(request["move"])
        return (
            {"state": record.state.value, "migration": record.id}
            if record
            else {"state": "", "migration": ""}
        )

    async def _take_back(self, request: Message, _runtime: Runtime) -> Message:
        """Have a move come to nothing; ``taken_back``: it has, and what is frozen of it may be let go."""
        record = self._source.of_move(request["move"])
        if record is None:
            return {"taken_back": True, "state": ""}
        taken_back = await self._arbiter.take_back(record)
        if taken_back:
            self.agent.tasks.decide(record.id, self._source.go_on(record))
        return {"taken_back": taken_back, "state": record.state.value}

    async def _status(self, _request: Message, _runtime: Runtime) -> Message:
        return {
            "version": __version__,
            "agent": {**self.agent.contact.as_message(), "addresses": sorted(self.agent.identity.addresses)},
            "guests": [_show_guest(guest) for guest in self.agent.guests.all()],
            "migrations": [
                outlook.describe(record, self.agent.config.deadlines) for record in self.agent.store.every()
            ],
        }

    async def _show_objections(self, _request: Message, _runtime: Runtime) -> Message:
        """What would refuse a checkpoint, by process; apart from the status, which must not wait for a process."""
        found = await self._objections.of(self.agent.guests.all())
        try:
            strangers = await self._strangers.look()
        except AgentError as error:
            _log.warning("processes without the guest library cannot be looked for: %s", error)
            strangers = []
        return {
            "guests": [
                {"container": guest.container, "process": guest.name, "reasons": reasons}
                for guest, reasons in found.items()
            ],
            "strangers": [one.as_message() for one in some_of_each_container(strangers, MOST_SHOWN)],
        }

    async def _hello(self, _caller: Identity, _request: Message) -> Message:
        return {"name": self.agent.identity.name, "version": agent_messages.VERSION}

    def _asked(self, guest: Guest, question: Question) -> None:
        self.agent.tasks.follow("", self._whereabouts.answer(guest, question))

    def _connected(self, guest: Guest) -> None:
        """See whether a guest that has connected is still to be told of the end of a migration."""
        tasks = self.agent.tasks
        settle: dict[Role, Callable[[Guest, Any], Coroutine[Any, Any, None]]] = {
            Role.SOURCE: self._source.settle,
            Role.DESTINATION: self._destination.settle,
            Role.PARTNER: self._partner.settle,
        }
        who = (guest.container, guest.name)
        concerned = [one for one in self.agent.store.every() if one.data.is_about(*who)]
        if not guest.container:  # others may have its name
            concerned = [one for one in concerned if is_meant(self.agent, one, guest)]
        told = [one for one in concerned if guest.name in one.data.pending]
        for record in told:
            tasks.follow(record.id, settle[record.role](guest, record))
        for record in concerned:
            if record.role is Role.PARTNER:
                tasks.follow(record.id, self._partner.reconnected(guest, record))
        waiting = guest.state in (GuestState.QUIESCING, GuestState.QUIESCED)
        if waiting and not told and all(one.is_final for one in concerned):
            # Its migration has ended without it, and nothing is left that could tell it so but this.
            tasks.follow("", guest.undo(self.agent.config.deadlines.guest))


def _another_has_begun(migration: str, runtime: Runtime) -> AgentError:
    runtime.released = True
    return AgentError(
        f"the claim on migration {migration} was given back, and another restore of it has begun"
    )


def _struck(name: str, handler: Handler) -> Handler:
    """The handler between the fault points of its answer."""
    action = fault_points.Action(f"answer.{name}")

    async def answer(caller: Identity, request: Message) -> Message:
        with fault_points.around(action, AgentError):
            return await handler(caller, request)

    return answer


def _advertised(addresses: list[str], identity: Identity) -> str:
    """Where others are to ask back: an address of the certificate, also if we listen on all there are."""
    return next((one for one in addresses if one in identity.addresses), min(identity.addresses))


def _is_own(address: str, identity: Identity, port: int) -> bool:
    host = host_of(address)
    return host in identity.addresses and address == join(host, port)


def _show_guest(guest: Guest) -> Message:
    return {
        "container": guest.container,
        "pid": guest.process.pid,
        "command": guest.process.command,
        "process": guest.name,
        "state": guest.state.name.lower(),
        "build_id": guest.build_id,
    }
