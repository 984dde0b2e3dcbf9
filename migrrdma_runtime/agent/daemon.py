"""The agent as a whole: its parts put together, started, and stopped without anybody noticing."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from migrrdma_runtime import __version__
from migrrdma_runtime.agent.local.containers import Containers
from migrrdma_runtime.agent.local.devices import Devices
from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.guest_objects import GuestState
from migrrdma_runtime.agent.local.local_sockets import LocalSockets
from migrrdma_runtime.agent.local.runtime_api import Runtime
from migrrdma_runtime.agent.peers import certificates
from migrrdma_runtime.agent.peers.agent_config import Settings, join
from migrrdma_runtime.agent.peers.certificates import Identity
from migrrdma_runtime.agent.peers.transport import Client, Server
from migrrdma_runtime.agent.roles.arbiter import Arbiter
from migrrdma_runtime.agent.roles.destination import Destination
from migrrdma_runtime.agent.roles.partner import Partner
from migrrdma_runtime.agent.roles.source import Source
from migrrdma_runtime.agent.roles.states import Role, State
from migrrdma_runtime.agent.roles.store import Record, Store
from migrrdma_runtime.agent.roles.this_agent import Here
from migrrdma_runtime.base.errors import AgentError, CertificateError
from migrrdma_runtime.wire import agent_messages
from migrrdma_runtime.wire.agent_messages import Message

_log = logging.getLogger(__name__)


class Daemon:
    """One agent. Starting it goes on where the last one stopped; stopping it changes nothing."""

    def __init__(
        self,
        settings: Settings,
        containers: Containers | None = None,
        devices: Devices | None = None,
        reached: Callable[[str], None] = lambda _: None,
        local: LocalSockets | None = None,
    ) -> None:
        credentials = certificates.load(settings.tls)
        self._local = local or LocalSockets(
            containers or Containers(settings.run_dir), settings.guest_socket, settings.runtime_socket
        )
        self._addresses = _listening(settings, credentials.identity)
        self.here = Here(
            settings=settings,
            identity=credentials.identity,
            address=join(_advertised(self._addresses, credentials.identity), settings.port),
            store=Store(settings.database),
            guests=self._local.guests,
            containers=self._local.containers,
            devices=devices or Devices(),
            client=Client(credentials),
            handlers={"hello": self._hello},
            reached=reached,
        )
        self._source = Source(self.here)
        self._destination = Destination(self.here)
        self._partner = Partner(self.here)
        Arbiter(self.here)
        self._server = Server(credentials, self.here.handlers)

    async def start(self) -> None:
        """Take up what the last agent left, then listen to everybody."""
        settings = self.here.settings
        self._partner.recover()
        self._source.recover(self._local.api)
        self._destination.recover()
        # Before anything that was just begun goes on: it would ask guests that nobody has looked at.
        self._local.receive(self._connected)
        await self._server.start(self._addresses, settings.port)
        await self._local.listen()
        self._local.serve(
            {
                "checkpoint": self._checkpoint,
                "restore": self._restore,
                "report": self._late_report,
                "status": self._status,
            }
        )
        _log.info("agent %s listens on %s", self.here.identity.name, ", ".join(self._addresses))

    async def stop(self) -> None:
        """Stop, leaving everything as it is: the next agent goes on."""
        await self._local.api.close()
        await self._server.stop()
        await self.here.stop()
        await self.here.guests.close()
        await self.here.client.close()
        self.here.store.close()

    async def _checkpoint(self, request: Message, runtime: Runtime) -> Message:
        return await self._source.checkpoint(request["container"], request["leave_running"], runtime)

    async def _restore(self, request: Message, runtime: Runtime) -> Message:
        return await self._destination.restore(request["container"], request["manifest"], runtime)

    async def _late_report(self, request: Message, _runtime: Runtime) -> Message:
        """Answer a report whose answer was lost with the last agent, from what the records say."""
        migration = request["migration"]
        await self.here.decided(migration)
        found = [self.here.store.find(migration, role) for role in (Role.DESTINATION, Role.SOURCE)]
        for record in sorted((one for one in found if one), key=lambda one: -one.updated):
            if record.role is Role.DESTINATION and record.state in (State.COMMITTED, State.DONE):
                return self._destination.result(record)
            if record.role is Role.SOURCE and (
                record.state is State.PARKED
                or (record.state is State.ABORTED and record.data["left_running"])
            ):
                return {"rdma": True, "migration": migration, "timeline": record.data["timeline"]}
        raise AgentError(
            f"migration {migration} was undone when the agent was restarted: what was dumped cannot be "
            "restored with its connections, and what was restored must not run"
        )

    async def _status(self, _request: Message, _runtime: Runtime) -> Message:
        return {
            "version": __version__,
            "agent": {**self.here.me, "addresses": sorted(self.here.identity.addresses)},
            "guests": [_show_guest(guest) for guest in self.here.guests.all()],
            "migrations": [_show_record(record) for record in self.here.store.all()],
        }

    async def _hello(self, _caller: Identity, _request: Message) -> Message:
        return {"name": self.here.identity.name, "version": agent_messages.VERSION}

    def _connected(self, guest: Guest) -> None:
        """See whether a guest that has connected is still to be told of the end of a migration."""
        settle = {
            Role.SOURCE: self._source.settle,
            Role.DESTINATION: self._destination.settle,
            Role.PARTNER: self._partner.settle,
        }
        concerned = [one for one in self.here.store.all() if guest.name in _processes(one)]
        told = [one for one in concerned if guest.name in one.data.get("pending", ())]
        for record in told:
            self.here.spawn(settle[record.role](guest, record))
        for record in concerned:
            if record.role is Role.PARTNER:
                self.here.spawn(self._partner.reconnected(guest, record))
        waiting = guest.state in (GuestState.QUIESCING, GuestState.QUIESCED)
        if waiting and not told and all(one.is_final for one in concerned):
            # Its migration has ended without it, and nothing is left that could tell it so but this.
            self.here.spawn(guest.undo(self.here.settings.deadlines.guest))


def _listening(settings: Settings, identity: Identity) -> list[str]:
    """The configured addresses, else those of the certificate that are this host's."""
    if settings.listen:
        return list(settings.listen)
    own = [address for address in sorted(identity.addresses) if _is_local(address)]
    if not own:
        raise CertificateError(
            f"no address in {settings.tls.certificate} ({', '.join(sorted(identity.addresses))}) is "
            "this host's: issue it one with `migrrdma agent ca issue`, or set listen in agent.toml"
        )
    return own


def _advertised(addresses: list[str], identity: Identity) -> str:
    """Where others are to ask back: an address of the certificate, also if we listen on all there are."""
    return next((one for one in addresses if one in identity.addresses), min(identity.addresses))


def _is_local(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _processes(record: Record) -> list[str]:
    """The guests here that a record is about."""
    guests = record.data["guests"]
    return [one["process"] for one in guests] if record.role is Role.PARTNER else list(guests)


def _show_guest(guest: Guest) -> Message:
    return {
        "container": guest.container,
        "pid": guest.process.pid,
        "command": guest.process.command,
        "process": guest.name,
        "state": guest.state.name.lower(),
        "build_id": guest.build_id,
    }


_SHOWN = (
    "container", "source", "holder", "destination", "timeline", "blackouts", "blackout", "downtime", "reason",
)  # fmt: skip


def _show_record(record: Record) -> Message:
    """What may be shown of a record: no key, no token."""
    data = {key: record.data[key] for key in _SHOWN if key in record.data}
    return {
        "migration": record.id,
        "role": record.role.value,
        "state": record.state.value,
        "created": record.created,
        "updated": record.updated,
        "waiting_for": record.data.get("pending", []),
        **data,
    }
