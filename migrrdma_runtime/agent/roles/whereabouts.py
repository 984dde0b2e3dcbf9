"""Where a queue pair is that an application names, when it is about to be connected to it.

Its process may have moved since it gave the name out, a GID and a number. The agent of whoever asks goes to the name's
home, the agent of the host whose address the GID is, and on from there to every agent to which a process has gone that
was known by that GID. Each answers for the processes that are with it: by its own records for the GIDs that they are
known by and the numbers that they had, and by the kernel's word for whose a queue pair is. What only a process itself
says of its numbers counts where nobody else is meant: anyone may say it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.guest_objects import Question, QueuePair, There
from migrrdma_runtime.agent.local.resources import Holdings
from migrrdma_runtime.agent.local.shared_look import SharedLook
from migrrdma_runtime.agent.peers.agent_config import host_of
from migrrdma_runtime.agent.peers.certificates import Identity
from migrrdma_runtime.agent.roles.asked_for import LEASE_S
from migrrdma_runtime.agent.roles.numbers import evidence
from migrrdma_runtime.agent.roles.records import DestinationData, SourceData, SourceRecord
from migrrdma_runtime.agent.roles.states import State
from migrrdma_runtime.agent.roles.this_agent import ThisAgent, boot_clock
from migrrdma_runtime.base import gids
from migrrdma_runtime.base.errors import (
    AgentError,
    AllowanceError,
    GuestError,
    MessageError,
    MigrRDMAError,
    RefusedError,
    UnreachableError,
)
from migrrdma_runtime.wire import agent_messages, remote_keys
from migrrdma_runtime.wire.agent_messages import Contact, Message

_log = logging.getLogger(__name__)

_MOST_AGENTS = 256
"""That are asked for one queue pair: those that processes have gone to which were known by its GID."""

_LOOK_AGAIN_S = 0.2
"""Nobody tells when a migration of another host has ended."""

_CONNECT_S = 3.0
"""For the kernel of another host to answer. It does so whatever the agent is at; a packet is sent again after one."""

_MOST_HOMES = 1 << 12
"""Of which is remembered how they answer. Applications name whatever they like."""

_UNHELPFUL_S = 60.0
"""For so long an owner is not asked again of whom a process did not answer, or late, that only says it may be meant."""

_LATE_S = 1.0
"""Each question would wait for it."""

_NO_GID = gids.from_bytes(bytes(16))

_AWAY = (State.SUSPENDING, State.DUMPING, State.PARKED, State.CLAIMED, State.ADOPTING)
_ENDED_HERE = (State.PARKED, State.CLAIMED, State.ADOPTING)

_T = TypeVar("_T")


@dataclass
class _Heard:
    """What all have said of one name."""

    found: list[Message] = field(default_factory=list)
    claimed: list[Message] = field(default_factory=list)
    """By the word of processes only."""
    here: bool = False
    moving: str = ""
    silent: AgentError | None = None

    @property
    def is_to_be_asked_again(self) -> bool:
        """Whether it may be that of one who cannot say so just now."""
        waits = self.moving or isinstance(self.silent, GuestError)
        return bool(waits) and not self.found and not self.here

    @property
    def why_again(self) -> str:
        return f"it is being moved (migration {self.moving})" if self.moving else str(self.silent)


class Whereabouts:
    """Asks for this host's processes, and answers for them."""

    def __init__(self, agent: ThisAgent) -> None:
        self._agent = agent
        self._deadlines = agent.config.deadlines
        self._contacts: dict[str, Contact] = {}
        """Agents by the addresses at which they have been found."""
        self._nobody: dict[str, tuple[float, AgentError]] = {}
        """Addresses at which there was none, and until when that is believed."""
        self._left: set[str] = set()
        """Homes that somebody has left, by address: without their word nothing there is believed to be at home."""
        self._quiet: dict[str, float] = {}
        """Homes that nobody has left or leaves, until when that is lent."""
        self._unhelpful: dict[str, float] = {}
        """Containers and users, and until when they are not asked on the mere word of theirs."""
        self._shared_tables = SharedLook(lambda: asyncio.to_thread(self._tables))
        agent.handlers |= {"where": self.where, "moved_on": self.moved_on}

    # --- asking -------------------------------------------------------------------------------------------

    async def answer(self, guest: Guest, question: Question) -> None:
        """Tell a process where the queue pair is that it asks for."""
        try:
            await guest.charged(self._answer(guest, question))
        finally:
            guest.asking.ended()  # not before it is sent, which may take as long as the process likes

    async def _answer(self, guest: Guest, question: Question) -> None:
        try:
            # Who is not told anything takes the agent for a silent one.
            async with asyncio.timeout(self._deadlines.ask):
                await guest.asking.turns.acquire()
        except TimeoutError:
            there = _again(question, "its container asks for many others")
        else:
            there = await self._find_or_refuse(guest, question)
        if there.error and there.error != errno.EAGAIN and guest.asking.may_be_logged():
            _log.warning("%s is not connected to %s: %s", guest, _shown(question), there.text)
        await guest.answer(question, there, self._deadlines.guest)

    async def _find_or_refuse(self, guest: Guest, question: Question) -> There:
        limit = self._deadlines.peer + self._deadlines.guest + self._deadlines.ask
        try:
            async with asyncio.timeout(limit):
                return await self._find_in_time(guest, question)
        except TimeoutError:
            return _refusal(question, f"it could not be learnt within {limit:g} s where it is")
        except MigrRDMAError as error:
            return _refusal(question, str(error))
        finally:
            guest.asking.turns.release()

    async def _find_in_time(self, guest: Guest, question: Question) -> There:
        """Look until it is not being moved any more, or for so long that the process must hear something."""
        clock = asyncio.get_running_loop().time
        end = clock() + self._deadlines.ask
        while True:
            heard: _Heard | None = None
            with suppress(AllowanceError):
                heard = await self._ask_around(guest, question)
            if heard is not None and not heard.is_to_be_asked_again:
                return await self._decide(guest, question, heard)
            if clock() >= end:
                return _again(question, heard.why_again if heard is not None else "too many ask for others")
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _decide(self, guest: Guest, question: Question, heard: _Heard) -> There:
        if len(heard.found) + heard.here > 1:
            raise RefusedError(
                f"{len(heard.found) + heard.here} processes have a queue pair that is called so, as one has moved and "
                "another was given its number: let the program make another one"
            )
        if heard.here:
            return There(question.gid, question.qpn)
        if not heard.found:
            if heard.silent is not None:
                raise heard.silent
            if not heard.claimed:
                return There(question.gid, question.qpn)
            if len(heard.claimed) > 1:
                raise RefusedError("more than one process says that it has a queue pair that is called so")
        [found] = heard.found or heard.claimed
        holdings = await self._agent.resources.holdings()
        if holdings is not None and not holdings.possible_holders([guest], {question.from_qpn}):
            raise GuestError(f"{guest} asks for QP 0x{question.from_qpn:x}, which is not its own")
        keys = remote_keys.unpack({found["process"]: found["keys"]})[found["process"]]
        return There(found["gid"], found["qpn"], found["process"], tuple(keys))

    async def _ask_around(self, guest: Guest, question: Question) -> _Heard:
        """What is said at home, and by everybody to whom that leads."""
        heard = _Heard()
        try:
            home = self._agent.config.agent_for(question.gid)
        except AgentError:  # no address that could have an agent
            return heard
        if not await self._is_there(guest, home, question):
            return heard
        if boot_clock() < self._quiet.get(home, 0.0):
            # Its process need not wait for it; but that it is asked for has to be known there.
            if guest.asking.may_ask():
                renewed = self._renew(home, self._contacts[home], question)
                self._agent.tasks.follow("", guest.charged(renewed))
            return heard
        await guest.asking.until_it_may()
        asked: set[str] = set()
        next_ones = [self._contacts[home]]
        began = boot_clock()
        while next_ones:
            asked |= {one.name for one in next_ones}
            answers = await asyncio.gather(
                *(guest.charged(self._ask(one, question)) for one in next_ones), return_exceptions=True
            )
            others: dict[str, Contact] = {}
            for contact, answer in zip(next_ones, answers, strict=True):
                if isinstance(answer, BaseException):
                    if isinstance(answer, AllowanceError) or not isinstance(answer, AgentError):
                        raise answer
                    # Also one that answers no stranger: as if there were none. Not one whose process is silent.
                    if contact.address == home and not isinstance(answer, GuestError):
                        self._contacts.pop(home, None)
                        self._nobody_is_there(home, question, answer)
                    else:
                        heard.silent = _told_to_strangers(guest, question, answer)
                    continue
                if answer["quiet"] and contact.address == home:
                    _remember(self._quiet, home, began + LEASE_S)
                try:
                    for one in answer["found"]:
                        await self._require_its_own(contact, one["gid"])
                    for one in answer["found"]:
                        (heard.found if one["proven"] else heard.claimed).append(one)
                except AgentError as error:
                    heard.silent = error
                heard.here |= answer["here"] and contact.address == home
                heard.moving = heard.moving or answer["moving"]
                others |= {one["name"]: Contact(**one) for one in answer["others"]}
            if others:
                self._left.add(home)
            next_ones = [one for one in others.values() if one.name not in asked][: _MOST_AGENTS - len(asked)]
            guest.asking.has_asked(len(next_ones))
        return heard

    async def _require_its_own(self, contact: Contact, gid: str) -> None:
        """Whether an agent speaks for the GID at which it says that somebody is."""
        home = self._agent.config.agent_for(gid)
        if home == contact.address:
            return
        if home not in self._contacts:
            _remember(self._contacts, home, await self._agent.greet(home))
        if self._contacts[home].name != contact.name:
            raise RefusedError(
                f"agent {contact.name} says that it is at {gids.shown(gid)}, for which {self._contacts[home].name} "
                "speaks"
            )

    async def _renew(self, home: str, contact: Contact, question: Question) -> None:
        began = boot_clock()
        try:
            answer = await self._ask(contact, question)
        except AgentError as error:  # what was lent holds all the same
            _log.info("%s", error)
            return
        if answer["quiet"]:
            _remember(self._quiet, home, max(began + LEASE_S, self._quiet.get(home, 0.0)))

    async def _ask(self, contact: Contact, question: Question) -> Message:
        request = {
            "asker": self._agent.contact.as_message(),
            "gid": question.gid,
            "qpn": question.qpn,
            "from_gid": question.from_gid,
            "from_qpn": question.from_qpn,
        }
        limit = self._deadlines.peer + self._deadlines.guest
        return await self._agent.transport.ask(contact.address, "where", request, limit, contact.name)

    async def _is_there(self, guest: Guest, home: str, question: Question) -> bool:
        """Whether there is an agent that answers for the name; without, it stands for itself, or it is refused."""
        if home in self._contacts:
            return True
        clock = asyncio.get_running_loop().time
        until, error = self._nobody.get(home, (0.0, None))
        if error is None or clock() >= until:
            try:
                await self._require_somebody(guest, home)
                _remember(self._contacts, home, await self._agent.greet(home))
                self._nobody.pop(home, None)
                return True
            except AgentError as failed:
                # Without what it came by: a traceback holds on to much.
                error = failed.with_traceback(None)
                _remember(self._nobody, home, (clock() + self._deadlines.ask, error))
        self._nobody_is_there(home, question, error)
        return False

    def _nobody_is_there(self, home: str, question: Question, error: AgentError) -> None:
        """Raises where the name, or that of who asks, cannot stand for itself."""
        if home in self._left:
            raise UnreachableError(
                f"processes that were at {gids.shown(question.gid)} have moved, and where this one is cannot be "
                f"learnt: {error}"
            ) from error
        if question.asker_differs:
            raise RefusedError(
                f"its own process has moved, and no agent could tell the other end so: {error}"
            ) from error

    async def _require_somebody(self, guest: Guest, home: str) -> None:
        """See whether anybody takes connections there: a host without an agent must not cost what a silent one does."""
        if host_of(home) in self._agent.identity.addresses:
            return
        await guest.asking.until_it_may()  # an application may name a new address with each question
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, writer = await asyncio.open_connection(host_of(home), int(home.rpartition(":")[2]))
                writer.transport.abort()
        except (OSError, TimeoutError) as error:
            raise UnreachableError(
                f"nobody answers at {home} ({str(error) or 'no answer'}): is migrrdma-agent running there?"
            ) from error

    # --- answering ----------------------------------------------------------------------------------------

    async def where(self, caller: Identity, request: Message) -> Message:
        """Who is called so on this host, and who has left it that may be."""
        agent, asker = self._agent, Contact(**request["asker"])
        if not agent.config.late_comers:
            raise RefusedError("late comers are not looked for here (late_comers in agent.toml)")
        agent.require_is(caller, asker)
        agent.require_speaks_for(caller, request["from_gid"], asker.address)
        gid, qpn = request["gid"], request["qpn"]
        agent.asked_for.note(gid, qpn)
        known = agent.store.names.known_as(gid)
        others = {one.agent: one.contact for one in known if one.agent not in ("", agent.identity.name)}
        record, by_its_word = self._leaving(gid, qpn), self._leaving(gid, qpn, proven=False)
        leaves = record or by_its_word
        reply: Message = {
            "found": [],
            "here": False,
            "moving": leaves.id if leaves is not None else "",
            "quiet": False,
            "others": [one.as_message() for one in others.values()][: agent_messages.MOST_OTHERS],
        }
        if not known and not any(self._may_differ(one) for one in agent.guests.all()):
            if not any(one.state in _AWAY for one in agent.store.all(SourceData)):
                agent.asked_for.lend()
                return reply | {"quiet": True}  # so it is where nothing has ever moved
            if leaves is None:
                return reply
        tables = await self._shared_tables()
        asked = [] if record is not None else self._may_be_called(gid, tables)
        holdings = await agent.resources.holdings()
        silent: BaseException | None = None
        for answer in await asyncio.gather(
            *(self._found_at(guest, request, tables, holdings) for guest in asked), return_exceptions=True
        ):
            if isinstance(answer, BaseException):
                silent = answer
                continue
            found, moving = answer
            reply["found"] += found
            reply["moving"] = reply["moving"] or moving
        # Where one is meant for certain, who came from there as well and says nothing keeps nobody from it.
        is_certain = any(one["proven"] for one in reply["found"])
        if silent is not None and not (is_certain and isinstance(silent, GuestError | MessageError)):
            raise silent
        for one in known:
            if one.is_here and agent.guests.find(one.container, one.process) is None:
                reply["moving"] = reply["moving"] or self._arriving(one.container, one.process)
        if record is None or record.state in _ENDED_HERE:
            reply["here"] = _is_held(
                holdings, tables.get(gid, set()), request, asked, reply["found"], by_its_word
            )
        reply["found"].sort(key=lambda one: not one["proven"])
        del reply["found"][agent_messages.MOST_FOUND :]
        return reply

    def _leaving(self, gid: str, qpn: int, *, proven: bool = True) -> SourceRecord | None:
        """The migration, from here, that one that is called so takes part in."""
        for record in self._agent.store.all(SourceData):
            data = record.data
            undone = record.state is State.UNDONE and data.pending
            if record.state not in _AWAY and not undone:
                continue
            called = data.qpns if proven else data.unproven
            if any(gid in data.names.get(process, ()) and qpn in of for process, of in called.items()):
                return record
        return None

    def _leaves(self, container: str) -> SourceRecord | None:
        """The migration by which a container is just leaving."""
        records = self._agent.store.all(SourceData)
        return next((one for one in records if one.state in _AWAY and one.data.container == container), None)

    def _arriving(self, container: str, process: str) -> str:
        """The migration by which this process has just come, or comes."""
        for record in self._agent.store.all(DestinationData):
            comes = record.state in (State.RESTORING, State.COMMITTING) or record.data.pending
            if comes and record.data.is_about(container, process):
                return record.id
        return ""

    def _tables(self) -> dict[str, set[str]]:
        """The GIDs of the host, and the devices that have them."""
        found: dict[str, set[str]] = {}
        for device in self._agent.devices.names():
            for entry in self._agent.devices.gid_table(device):
                found.setdefault(gids.from_bytes(gids.packed(entry.gid)), set()).add(device)
        return found

    def _may_be_called(self, gid: str, tables: dict[str, set[str]]) -> list[Guest]:
        """Who has come here known by that GID; of one of this host's own, whose numbers are not the device's."""
        guests = self._agent.guests
        come = [
            guests.find(one.container, one.process)
            for one in self._agent.store.names.known_as(gid)
            if one.is_here
        ]
        own = [one for one in guests.all() if self._may_differ(one)] if gid in tables else []
        return list(dict.fromkeys(one for one in (*come, *own) if one is not None))

    def _may_differ(self, guest: Guest) -> bool:
        return guest.differs and self._unhelpful.get(guest.owner, 0.0) < boot_clock()

    async def _found_at(
        self, guest: Guest, request: Message, tables: dict[str, set[str]], holdings: Holdings | None
    ) -> tuple[list[Message], str]:
        """What it has, and the migration by which it comes and because of which it cannot say so."""
        began = boot_clock()
        try:
            return await self._look_at(guest, request, tables, holdings), ""
        except (GuestError, MessageError) as error:
            if migration := self._arriving(guest.container, guest.name):
                return [], migration
            if leaves := self._leaves(guest.container):
                # Of what is parked the record has the numbers: it is not meant. Before, one may have been made since.
                return [], leaves.id if leaves.state is State.SUSPENDING else ""
            if self._agent.store.names.of(guest.container, guest.name):
                raise
            _log.warning("%s does not say whether it is QP 0x%x: %s", guest, request["qpn"], error)
            _remember(self._unhelpful, guest.owner, boot_clock() + _UNHELPFUL_S)
            return [], ""
        finally:
            # One that has only said that it may be meant keeps nobody from those that can be.
            is_known = self._agent.store.names.of(guest.container, guest.name)
            if not is_known and boot_clock() - began > _LATE_S:
                _remember(self._unhelpful, guest.owner, boot_clock() + _UNHELPFUL_S)

    async def _look_at(
        self, guest: Guest, request: Message, tables: dict[str, set[str]], holdings: Holdings | None
    ) -> list[Message]:
        limit, end = self._deadlines.guest, (request["from_gid"], request["from_qpn"])
        found: list[Message] = []
        for one in await guest.find(request["gid"], request["qpn"], limit):
            if len(found) == agent_messages.MOST_FOUND:
                break  # of so many none is chosen
            pair = replace(one, sgid=request["gid"] if one.sgid == _NO_GID else one.sgid)
            # One that is connected to somebody else is none that could be meant.
            is_free = pair.may_be_connected or (pair.is_connected and pair.other_end == end)
            if not is_free or pair.names_srqs or pair.is_target or pair.sgid not in tables:
                continue
            contexts = await guest.contexts(limit) if holdings is not None else []
            if holdings is not None and (objection := holdings.objection(guest, contexts, pair)):
                if guest.asking.may_be_logged():
                    _log.warning("%s", objection)
                continue
            known = evidence(self._agent, guest, contexts, holdings)
            is_proven = known.bears_out(pair, request["qpn"])
            found.append(await self._describe(guest, pair) | {"proven": is_proven})
        return found

    async def _describe(self, guest: Guest, pair: QueuePair) -> Message:
        keys, _ = await guest.remote_numbers(self._deadlines.guest)
        return {
            "gid": pair.sgid,
            "qpn": pair.pqpn,
            "process": remote_keys.map_name(guest.name, *pair.domain),
            "keys": remote_keys.pack(
                [
                    (virtual, physical)
                    for virtual, physical in keys.get(pair.domain, [])
                    if virtual != physical
                ]
            ),
        }

    async def moved_on(self, caller: Identity, request: Message) -> Message:
        """Learn where a process is that has gone on from where it had gone to from here."""
        there, store = Contact(**request["agent"]), self._agent.store
        if there.name == self._agent.identity.name:
            return {}  # what comes back to here is known from its restore
        # Only who has it may give it on.
        known = [store.names.gone_to(caller.name, one["gid"], one["process"]) for one in request["names"]]
        moved = [replace(one, agent=there.name, address=there.address) for one in known if one is not None]
        store.learn_names(moved)
        return {}


def _is_held(
    holdings: Holdings | None,
    devices: Iterable[str],
    request: Message,
    asked: list[Guest],
    found: list[Message],
    leaves: SourceRecord | None,
) -> bool:
    """Whether somebody else than was asked has that number here, and is not connected to another end.

    Who leaves cannot be asked. It has said that the number is its own, and is believed where the kernel says so, too.
    """
    if holdings is None:
        return False
    number = request["qpn"]
    for device in devices:
        owned = holdings.pairs.get((device, number))
        if owned is None or owned.takes_datagrams or owned.module:
            continue
        is_free = owned.peer in (None, 0, request["from_qpn"])
        has_said = any(holdings.is_made_by(guest, device, number) for guest in asked)
        if leaves is not None:
            pids = [one.pid for one in leaves.data.processes]
            has_said = has_said or holdings.is_made_in(leaves.data.container, pids, device, number)
        if not owned.pid:  # whose it is the kernel does not say any more
            has_said = any(one["proven"] and one["qpn"] == number for one in found)
        if is_free and not has_said:
            return True
    return False


def _told_to_strangers(guest: Guest, question: Question, error: AgentError) -> AgentError:
    """What an application may hear of why it is not told: nothing of other processes than its own."""
    if not isinstance(error, GuestError | MessageError):
        return error
    if guest.asking.may_be_logged():
        _log.warning("%s is not told where %s is: %s", guest, _shown(question), error)
    return type(error)("a process there that may be meant does not answer its agent")


def _remember(known: dict[str, _T], home: str, what: _T) -> None:
    """In the place of the oldest, if there is no room."""
    known.pop(home, None)
    if len(known) >= _MOST_HOMES:
        del known[next(iter(known))]
    known[home] = what


def _refusal(question: Question, text: str) -> There:
    return There(question.gid, question.qpn, error=errno.EHOSTUNREACH, text=text)


def _again(question: Question, text: str) -> There:
    return replace(_refusal(question, text), error=errno.EAGAIN)


def _shown(question: Question) -> str:
    return f"QP 0x{question.qpn:x} of {gids.shown(question.gid)}"
