"""A container that leaves this host: from the first look to the receipt.

:meth:`Departures.migrate` is the whole of it; the rest are its steps. Until the agents have committed it, everything
that was done is undone again: the container here goes on, and what was made of it there is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import statistics
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from migrrdma_runtime.agent.peers.agent_config import AgentConfig, join
from migrrdma_runtime.agent.peers.grpc_transport import GrpcTransport
from migrrdma_runtime.base.errors import (
    AgentError,
    EngineError,
    MigrRDMAError,
    RefusedError,
    StoreError,
    UnreachableError,
    UsageError,
)
from migrrdma_runtime.engine.description import Description
from migrrdma_runtime.engine.engine import IMAGE_DEADLINE_S, Container, Engine
from migrrdma_runtime.engine.mounts import Mount
from migrrdma_runtime.mover import connections, facts, guest_library, mapped, streams
from migrrdma_runtime.mover.agent_here import COMMITTED, AgentHere
from migrrdma_runtime.mover.book import Book, Departing
from migrrdma_runtime.mover.dump import ROUNDS, LowLevel, wait_for_dump
from migrrdma_runtime.mover.layer import Layer, told
from migrrdma_runtime.mover.rounds import MOST_ROUNDS, WORTH_ROUNDS, Round, Rounds
from migrrdma_runtime.wire import mover_messages, tokens
from migrrdma_runtime.wire.agent_messages import Contact, Message

_log = logging.getLogger(__name__)

Watcher = Callable[[Message], None]
"""Told of everything that happens to a move: one event at a time, ready for JSON."""

_HEARTBEAT_S = 10.0
"""How often the destination hears that the source is there, while nothing else is said."""
_OUTCOME_S = 10.0
_LAST_MOVES = 9
"""So many tell what the next one will take."""
_ASK_S = 1.0
_OFF: dict[str, Any] = {"Name": "no", "MaximumRetryCount": 0}
_NONE: Watcher = lambda _: None  # noqa: E731


@dataclass
class Journey:
    """One move while it is under way."""

    departing: Departing
    options: Message
    watcher: Watcher
    description: Description
    container: Container
    engine: Engine
    low_level: LowLevel
    folder: Path
    task: asyncio.Task[Any] | None = None
    cancelled: str = ""
    steps: list[Message] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    expected: float = 0.0
    """Seconds that it was expected to stand still when it was stopped; 0: nothing of its memory had gone ahead."""
    mapped: set[str] = field(default_factory=set)
    """Files that are sent once more, as their times do not say whether they have changed (mapped.py)."""
    mounts: list[Mount] = field(default_factory=list)
    """Volumes and folders that go along."""
    nameless: list[str] = field(default_factory=list)
    """Of these the volumes without a name of the user's, which the engine there makes anew."""
    guests: list[str] = field(default_factory=list)
    """Versions of the guest library that its processes run and that are not there."""
    has_image: bool = False
    """The image is there."""
    layers: int = 0
    """So many of its lowest layers are."""

    @property
    def id(self) -> str:
        """Its name."""
        return self.departing.id

    @property
    def there(self) -> Contact:
        """The mover it goes to."""
        return Contact(**self.departing.destination)

    @contextlib.asynccontextmanager
    async def step(self, name: str, *, may_end: bool = True) -> AsyncGenerator[None, None]:
        """A step of it, for whoever watches and for the receipt; it ends by its deadline if one was asked for."""
        begin, limit = time.time(), self.options.get("timeout", 0) if may_end else 0
        self.watcher({"move": self.id, "step": name, "state": "begun"})
        try:
            async with asyncio.timeout(limit or None) as deadline:
                yield
        except BaseException as error:
            self.watcher({"move": self.id, "step": name, "state": "failed", "seconds": time.time() - begin})
            if isinstance(error, TimeoutError) and deadline.expired():
                raise UnreachableError(
                    f"{name} took longer than {limit:g} s, which --timeout allows each step"
                ) from None
            raise
        seconds = time.time() - begin
        self.steps.append({"name": name, "start": begin, "seconds": seconds})
        self.watcher({"move": self.id, "step": name, "state": "done", "seconds": seconds})

    async def counted(
        self, what: str, chunks: AsyncGenerator[bytes, None], total: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """The same bytes, of which whoever watches sees how many have been sent."""
        begin = said = time.monotonic()
        self.sent[what] = 0
        limit = self.options.get("bandwidth", 0)
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                yield chunk
                self.sent[what] += len(chunk)
                if limit and (early := self.sent[what] / limit - (time.monotonic() - begin)) > 0:
                    await asyncio.sleep(early)
                if time.monotonic() - said > 0.2:
                    said = time.monotonic()
                    self.watcher({"move": self.id, "sending": what, "bytes": self.sent[what], "total": total})
        self.watcher({"move": self.id, "sending": what, "bytes": self.sent[what], "total": total})


class Departures:
    """Every container that leaves this host."""

    def __init__(
        self,
        book: Book[Departing],
        agent: AgentHere,
        transport: GrpcTransport,
        config: AgentConfig,
        name: str,
        port: int,
        find: Callable[[str, str], tuple[Engine, Container]],
        low_level: Callable[[str, str], LowLevel] = LowLevel,
    ) -> None:
        self._book = book
        self._agent = agent
        self._transport = transport
        self._config = config
        self._name = name
        self._port = port
        self._find = find
        self._folder = config.state_dir / "moves"
        self._under_way: dict[str, Journey] = {}
        self._leaving: set[str] = set()
        self._low_level = low_level

    async def migrate(self, options: Message, watcher: Watcher = _NONE) -> Message:
        """Move a container; the receipt, or with ``dry_run`` what would hinder it. An error: it goes on here."""
        engine, container = await asyncio.to_thread(self._find, options["container"], options["engine"])
        self._require_staying(container)
        if options["dry_run"]:
            journey = await self._begin(engine, container, options, watcher)
            return {"move": "", "obstacles": await self._obstacles(journey)}
        with self._leaving_once(container):
            return await self._migrate(await self._begin(engine, container, options, watcher))

    async def _migrate(self, journey: Journey) -> Message:
        journey.task = asyncio.current_task()
        self._under_way[journey.id] = journey
        try:
            self._book.write(journey.departing)
            async with journey.step("looking"):
                await self._require_none(journey)
            alive = asyncio.ensure_future(self._say_that_we_are_here(journey))
            try:
                await self._carry(journey)
            finally:
                alive.cancel()
        except (Exception, asyncio.CancelledError) as error:
            why = journey.cancelled or str(error) or type(error).__name__
            if isinstance(error, asyncio.CancelledError) and not journey.cancelled:
                raise  # the mover is stopped: the next one goes on with it
            if not await asyncio.shield(asyncio.ensure_future(self._undo(journey, why))):
                # It is over there all the same, and too late to cancel it.
                self._under_way.pop(journey.id, None)
                return await self._leave(journey)
            if journey.cancelled:
                raise RefusedError(f"{journey.cancelled}: {journey.departing.name} goes on here") from None
            if not isinstance(error, MigrRDMAError):
                raise
            raise type(error)(f"{why} ({journey.departing.name} goes on here)") from error
        finally:
            self._under_way.pop(journey.id, None)
        return await self._leave(journey)

    def cancel(self, move: str) -> bool:
        """Undo a move that is under way; False: it is not, or it is too late. The answer is its own end."""
        journey = self._under_way.get(move)
        if journey is None or journey.task is None or journey.cancelled:
            return False
        journey.cancelled = f"move {move} was cancelled"
        journey.task.cancel()
        return True

    def moves(self) -> list[Message]:
        """Every move of a container from here, oldest first."""
        return [
            {
                "move": one.id,
                "container": one.name,
                "engine": one.engine,
                "destination": one.destination["name"],
                "state": one.state,
                "started": one.started,
                "error": one.error,
                "receipt": one.receipt,
            }
            for one in sorted(self._book.moves.values(), key=lambda one: one.started)
        ]

    async def recover(self) -> None:
        """After a start: what the last mover had begun is undone, or ended where it is committed."""
        await asyncio.gather(*(self._recover(one) for one in self._book.under_way()))

    async def _recover(self, departing: Departing) -> None:
        while True:
            try:
                engine, container = await asyncio.to_thread(self._find, departing.container, departing.engine)
                break
            except EngineError as error:
                if not Path(departing.root, departing.container).exists():
                    # It has ended and was removed meanwhile: nothing stands still here.
                    await self._recover_without(departing, str(error))
                    return
                _log.warning("move %s: %s; tried again", departing.id, error)
                await asyncio.sleep(_HEARTBEAT_S)
        journey = Journey(
            departing,
            {},
            _NONE,
            Description(departing.engine, departing.name, "", "", {}, departing.restart),
            container,
            engine,
            self._low_level(departing.root, departing.container),
            self._folder / departing.id,
        )
        if departing.state == "moved" or not await self._undo(journey, "the mover was restarted"):
            await self._leave(journey)

    async def _recover_without(self, departing: Departing, why: str) -> None:
        there = Contact(**departing.destination)
        name, request = "drop", {"move": departing.id, "reason": why[:4096]}
        if departing.state == "moved":
            name, request = "finish", {"move": departing.id}
        with contextlib.suppress(AgentError):  # it finds out by itself
            await self._transport.ask(there.address, name, request, self._limit, there.name)
        await asyncio.to_thread(shutil.rmtree, self._folder / departing.id, ignore_errors=True)
        moved = departing.state == "moved"
        self._note(departing, state="moved" if moved else "undone", ended=True, error="" if moved else why)

    # --- steps ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _leaving_once(self, container: Container) -> Iterator[None]:
        """Have nobody else begin to move a container, also while this one has only begun."""
        self._leaving.add(container.id)
        try:
            yield
        finally:
            self._leaving.discard(container.id)

    def _require_staying(self, container: Container) -> None:
        """Refuse one that is being moved; what an earlier mover has begun may still be being undone."""
        under_way = {one.container for one in self._book.under_way()}
        if container.id in self._leaving | under_way:
            raise RefusedError(
                f"container {container.name} is being moved already: see `migrrdma migration moves`"
            )

    async def _begin(
        self, engine: Engine, container: Container, options: Message, watcher: Watcher
    ) -> Journey:
        if not container.running:
            raise UsageError(
                f"container {container.name} does not run: what does not run is not moved, but created there"
            )
        if not engine.adopts(container):
            raise UsageError(
                f"container {container.name} is run by {container.runtime or 'another runtime'}: only one that was "
                "started with --runtime=migrrdma can be moved"
            )
        there = await self.greet(options["destination"])
        if there.name == self._name:
            raise UsageError(f"{options['destination']} is this host: a container moves to another one")
        description = await asyncio.to_thread(engine.describe, container)
        root = await asyncio.to_thread(engine.low_level_root, container)
        departing = Departing(
            tokens.new_migration(),
            engine.name,
            container.id,
            container.name,
            str(root),
            there.as_message(),
            description.restart,
            options["keep_source"],
        )
        low_level = self._low_level(str(root), container.id)
        folder = self._folder / departing.id
        return Journey(departing, options, watcher, description, container, engine, low_level, folder)

    async def greet(self, where: str) -> Contact:
        """The mover of a host, by the host's name or address, perhaps with a port; `AgentError`: there is none."""
        host, _, port = where.rpartition(":") if _has_port(where) else (where, "", "")
        address = join(host.strip("[]"), int(port or self._port))
        limit = self._config.deadlines.peer
        answer = await self._transport.ask(address, "hello", {"version": mover_messages.VERSION}, limit)
        if answer["version"] != mover_messages.VERSION:
            raise AgentError(
                f"the mover at {address} speaks version {answer['version']} and this one {mover_messages.VERSION}: "
                "install the same migrrdma on both hosts"
            )
        return Contact(answer["name"], address)

    async def _obstacles(self, journey: Journey) -> list[Message]:
        """Everything that would hinder it, on every host, each with its remedy; nothing is touched."""
        found: list[Message] = []
        if journey.container.paused:
            found.append(
                {
                    "what": f"container {journey.departing.name} is paused",
                    "remedy": "let it go on, and try again",
                }
            )
        if journey.container.auto_remove and journey.options["keep_source"]:
            found.append(
                {
                    "what": f"container {journey.departing.name} was started with --rm: its engine removes what ends",
                    "remedy": "move it without --keep-source",
                }
            )
        with_volumes = journey.options["with_volumes"]
        stays = await asyncio.to_thread(journey.engine.left_behind, journey.container)
        found += [{"what": one.what, "remedy": one.remedy} for one in stays if not with_volumes]
        ends = await asyncio.to_thread(connections.established, journey.container.pid)
        if ends and journey.options["tcp"] != "keep":
            shown = ", ".join(ends[:4]) + (f" and {len(ends) - 4} more" if len(ends) > 4 else "")
            found.append(
                {
                    "what": f"it has established TCP connections: {shown}",
                    "remedy": "--tcp keep takes them along, if its network gives it the same address there",
                }
            )
        guests: list[str] = []
        try:
            looked = await self._agent.look_at(journey.container.id)
            found += [{"what": one, "remedy": _BY_THE_TEXT} for one in looked["obstacles"]]
            guests = looked["build_ids"]
        except AgentError as error:
            found.append({"what": str(error), "remedy": "see `migrrdma check` on this host"})
        request = {
            "description": journey.description.as_message(),
            "bytes": await asyncio.to_thread(_memory_of, journey.container.pid),
            "facts": await asyncio.to_thread(facts.of_this_host),
            "guests": guests,
            "layers": await asyncio.to_thread(journey.engine.layers, journey.description.image_id),
            "with_volumes": with_volumes,
        }
        # It asks its engine, and CRIU for its version: on a busy host that takes its time.
        answer = await self._ask(journey, "look", request, seconds=self._long)
        for one in answer["obstacles"]:
            found.append({"what": f"{journey.there.name}: {one['what']}", "remedy": one["remedy"]})
        journey.has_image, journey.layers = answer["has_image"], answer["layers"]
        journey.guests = answer["guests"]
        for one in journey.guests:
            if not (self._config.guest_dir / one).is_dir():
                found.append(
                    {
                        "what": f"the guest library {one:.12} that it runs is installed on neither host any more",
                        "remedy": "install that version of migrrdma on one of them; versions stay side by side",
                    }
                )
        if with_volumes:
            nameless = [one.mount for one in stays]
            found += await asyncio.to_thread(_choose_mounts, journey, answer["mounts"], nameless)
        return found

    async def _require_none(self, journey: Journey) -> None:
        found = await self._obstacles(journey)
        journey.watcher({"move": journey.id, "obstacles": found})
        if found:
            lines = "; ".join(f"{one['what']} ({one['remedy']})" for one in found)
            raise RefusedError(f"{journey.departing.name} cannot be moved to {journey.there.name}: {lines}")

    async def _carry(self, journey: Journey) -> None:
        """Everything from the first byte to the commit."""
        departing, engine = journey.departing, journey.engine
        if not journey.has_image:
            async with journey.step("sending the image"):
                await self._send_image(journey)
        for one in journey.guests:
            library = guest_library.read(self._config.guest_dir, one)
            await self._send(journey, "guest", {"guest": one}, "guest library", library)
        async with journey.step("making the container"):
            await self._ask(
                journey,
                "receive",
                {
                    "move": journey.id,
                    "description": journey.description.as_message(),
                    "mounts": [one.called for one in journey.mounts if one.called not in journey.nameless],
                },
                seconds=self._long,
            )
        files = {"": Layer(await asyncio.to_thread(engine.layer, journey.container))}
        files |= {one.target: Layer(one.source) for one in journey.mounts}
        journey.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with journey.step("sending its files"):
            # Also those that are let go of before the end: their last changes may have left no trace.
            journey.mapped = await asyncio.to_thread(mapped.written_to, journey.low_level.state)
            for mount, layer in files.items():
                await asyncio.to_thread(layer.look)
                header = {"move": journey.id, "mount": mount}
                what = f"files in {mount}" if mount else "files"
                await self._send(journey, "layer", header, what, streams.read_layer(layer.root))
        rounds = await self._plan(journey)
        if rounds.go_on():
            await self._send_round(journey, rounds)
        async with journey.step("starting its engine there"):
            answer = await self._ask(journey, "start", {"move": journey.id}, seconds=self._long)
            if answer["state"] != "awaiting":
                raise EngineError(f"{journey.there.name}: {answer['error'] or answer['state']}")
        while rounds.done and rounds.go_on(await journey.low_level.marked()):
            await self._send_round(journey, rounds)
        if rounds.done:
            journey.expected = rounds.expected(await journey.low_level.marked())
        self._book.write(departing, state="stopping")
        await asyncio.to_thread(engine.set_restart, journey.container, _OFF)
        async with journey.step("draining and dumping"):
            await journey.low_level.dump(
                journey.id,
                journey.there.name,
                journey.folder,
                keeps_tcp=journey.options["tcp"] == "keep",
                rounds=len(rounds.done),
            )
        images = journey.folder / "images"
        async with journey.step("sending the rest"):
            for mount, layer in files.items():
                await self._send_rest_of_files(journey, layer, mount)
            total = await asyncio.to_thread(streams.size_of, images, ROUNDS)
            rest = streams.read_folder(images, without=ROUNDS)
            what = "memory, the rest" if rounds.done else "memory"
            await self._send(journey, "images", {"move": journey.id}, what, rest, total)
        async with journey.step("restoring there"):
            await self._restored(journey)

    async def _plan(self, journey: Journey) -> Rounds:
        """How many rounds of memory there may be: none where that is impossible, or nobody asked and it is little."""
        most, downtime = journey.options["rounds"], journey.options["max_downtime"]
        if most == 0:
            return Rounds(0, downtime)
        if most < 0 and await asyncio.to_thread(_memory_of, journey.container.pid) < WORTH_ROUNDS:
            return Rounds(0, downtime)
        if why := await journey.low_level.why_no_rounds():
            journey.watcher({"move": journey.id, "note": f"its memory is sent in one piece: {why}"})
            return Rounds(0, downtime)
        return Rounds(most if most > 0 else MOST_ROUNDS, downtime, self._least(journey.there.name))

    def _least(self, destination: str) -> float:
        """Seconds that the last moves to a host stood still besides what they sent; 0: there are none."""
        known = [
            float(one.receipt["least_downtime"])
            for one in sorted(self._book.moves.values(), key=lambda one: one.started)
            if one.destination["name"] == destination and "least_downtime" in one.receipt
        ]
        return statistics.median(known[-_LAST_MOVES:]) if known else 0.0

    async def _send_round(self, journey: Journey, rounds: Rounds) -> None:
        """Send memory ahead; what has been sent is not kept here."""
        number, begin = rounds.next, time.monotonic()
        async with journey.step(f"sending its memory, round {number}"):
            images = await journey.low_level.dump_round(
                journey.id, journey.there.name, journey.folder, number
            )
            dumped, stays = time.monotonic() - begin, await journey.low_level.marked()
            begin, what = time.monotonic(), f"memory, round {number}"
            total = await asyncio.to_thread(streams.size_of, images)
            header = {"move": journey.id, "number": number}
            await self._send(journey, "round", header, what, streams.read_folder(images), total)
            await asyncio.to_thread(_empty, images)
        sent, marked = time.monotonic() - begin, await journey.low_level.marked()
        rounds.done.append(Round(number, journey.sent[what], dumped, sent, stays, marked))
        last = rounds.done[-1]
        journey.watcher(
            {
                "move": journey.id,
                "round": number,
                "bytes": last.bytes,
                "rate": last.rate,
                "dirty_rate": last.dirty_rate,
                "left": last.marked,
                "expected_downtime": rounds.expected(),
            }
        )

    async def _restored(self, journey: Journey) -> None:
        """Wait until it runs there, by the word of whoever starts it and of this host's agent."""
        while True:
            answer = await self._ask(
                journey, "outcome", {"move": journey.id, "wait": _OUTCOME_S}, seconds=_OUTCOME_S + self._limit
            )
            if answer["state"] == "failed":
                raise EngineError(f"{journey.there.name}: {answer['error']}")
            if answer["state"] == "running":
                journey.departing.receipt |= {
                    "timeline": answer["timeline"],
                    "downtime": answer["downtime"],
                    "blackouts": answer["blackouts"],
                    "lost": answer["lost"],
                }
                return

    async def _undo(self, journey: Journey, why: str) -> bool:
        """Have the container here go on, and remove it there; False: it is there that it goes on."""
        departing = journey.departing
        await wait_for_dump(journey.id)
        if departing.state == "stopping":
            if not await self._take_back(journey, why):
                return False
            if not await self._is_paused(journey):
                await journey.low_level.resume()
            await self._set_restart_again(journey)
        journey.watcher({"move": journey.id, "undone": why})
        await self._drop(journey, why)  # who does not hear it finds out by itself
        await asyncio.to_thread(shutil.rmtree, journey.folder, ignore_errors=True)
        self._note(departing, state="undone", ended=True, error=why)
        return True

    async def _set_restart_again(self, journey: Journey) -> None:
        """As it was; an engine that is being started anew is waited for, since nobody else will do it."""
        departing = journey.departing
        while True:
            try:
                if await asyncio.to_thread(journey.engine.knows, departing.container):
                    await asyncio.to_thread(journey.engine.set_restart, journey.container, departing.restart)
                return
            except EngineError as error:
                _log.warning("move %s: the restart policy is not set again: %s", journey.id, error)
                waiting = f"it goes on here, and its restart policy is off until {departing.engine} answers: {error}"
                journey.watcher({"move": journey.id, "waiting": waiting})
            await asyncio.sleep(_ASK_S)

    def _note(self, departing: Departing, **changes: Any) -> None:
        """Write down what has been done; a full disk changes nothing about it."""
        try:
            self._book.write(departing, **changes)
        except StoreError as error:
            _log.warning(
                "move %s: %s; the next mover finds out once more how it has ended", departing.id, error
            )
            for name, value in changes.items():
                setattr(departing, name, value)

    @staticmethod
    async def _is_paused(journey: Journey) -> bool:
        """By its user: its dump was refused then. One that we have frozen an engine can neither pause nor let go on."""
        try:
            found = await asyncio.to_thread(journey.engine.container, journey.departing.container)
        except EngineError:
            return False
        return found.paused

    async def _take_back(self, journey: Journey, why: str) -> bool:
        """Have nobody there become the authority any more; False: it is there already."""
        clock = asyncio.get_running_loop().time
        begin = clock()
        while True:
            state, patience = "", self._config.deadlines.doubt - (clock() - begin)
            try:
                taken_back, state = await self._agent.take_back(journey.id)
                if taken_back:
                    return True
            except AgentError as error:  # it is being started anew
                _log.warning("move %s: %s", journey.id, error)
            if state in COMMITTED and await self._runs_there(journey, patience):
                return False
            # As long as it is being restored there it may still be committed: have that ended.
            await self._drop(journey, why)
            doubt = f"whether it runs on {journey.there.name} is not known"
            journey.watcher({"move": journey.id, "waiting": doubt})
            await asyncio.sleep(_ASK_S)

    async def _runs_there(self, journey: Journey, patience: float) -> bool:
        """Whether what is committed does; it may be given back as long as nothing of it has run."""
        try:
            answer = await self._ask(journey, "outcome", {"move": journey.id, "wait": 0.0})
        except AgentError:  # a host that has died with it does not say so
            return patience < 0
        return bool(answer["state"] == "running")

    async def _drop(self, journey: Journey, why: str) -> None:
        with contextlib.suppress(AgentError):
            await self._ask(journey, "drop", {"move": journey.id, "reason": why[:4096]}, seconds=self._long)

    async def _leave(self, journey: Journey) -> Message:
        """It runs there: end what stands still here, and remove it."""
        departing = journey.departing
        await asyncio.to_thread(shutil.rmtree, journey.folder, ignore_errors=True)
        with contextlib.suppress(
            StoreError
        ):  # the agents have it on the disk, and are asked by the next mover
            self._book.write(departing, state="moved")
        async with journey.step("removing it here", may_end=False):
            await journey.low_level.kill()
            try:
                await asyncio.to_thread(self._remove, journey)
            except EngineError as error:
                _log.warning("move %s: the container is still here, ended: %s", journey.id, error)
        with contextlib.suppress(AgentError):  # it does so by itself, later
            await self._ask(journey, "finish", {"move": journey.id})
        receipt = {
            **departing.receipt,
            "move": journey.id,
            "container": departing.name,
            "source": self._name,
            "destination": journey.there.name,
            "steps": journey.steps,
            "bytes": journey.sent,
            "expected_downtime": journey.expected,
        }
        if journey.expected:
            took = {step["name"]: float(step["seconds"]) for step in journey.steps}
            receipt["least_downtime"] = took["draining and dumping"] + took["restoring there"]
        self._note(departing, state="moved", ended=True, receipt=receipt)
        return receipt

    @staticmethod
    def _remove(journey: Journey) -> None:
        engine, container = journey.engine, journey.container
        engine.kill(container)
        if journey.departing.keep_source:
            # By the name that it had: a mover that was killed may have renamed it.
            engine.rename(container, f"{journey.departing.name}-moved-{journey.id}")
        else:
            engine.remove(container)

    async def _send_image(self, journey: Journey) -> None:
        wanted = journey.description
        blocks = journey.engine.save_image(wanted.image_id, wanted.image, journey.layers)
        header = {"engine": wanted.engine, "image": wanted.image_id}
        await self._send(journey, "image", header, "image", streams.from_a_thread(blocks))

    async def _send_rest_of_files(self, journey: Journey, layer: Layer, mount: str) -> None:
        found = await asyncio.to_thread(layer.changes)
        header, where = {"move": journey.id, "mount": mount}, f" in {mount}" if mount else ""
        if found.stays:
            await self._send(journey, "stays", header, f"names of files{where}", told(found.stays))
        names = journey.mapped | await asyncio.to_thread(mapped.written_to, journey.low_level.state)
        if mount:
            names = mapped.within(names, mount)
        once_more = await asyncio.to_thread(mapped.with_all_names, layer.root, names)
        if files := sorted({*found.changed, *once_more}):
            rest = streams.read_files(layer.root, files)
            await self._send(journey, "layer", header, f"files{where}, the rest", rest)

    async def _send(
        self,
        journey: Journey,
        name: str,
        header: Message,
        what: str,
        chunks: AsyncGenerator[bytes, None],
        total: int = 0,
    ) -> None:
        """Send a stream to its end, unless no byte of it moves any more."""
        there, counted = journey.there, journey.counted(what, chunks, total)
        # An engine may work on the last of an image for minutes.
        patience = IMAGE_DEADLINE_S if name == "image" else streams.STALL_S
        sending = asyncio.ensure_future(
            self._transport.send(there.address, name, header, counted, self._limit, there.name)
        )
        try:
            while not sending.done():
                before = journey.sent.get(what)
                await asyncio.wait((sending,), timeout=patience)
                if not sending.done() and journey.sent.get(what) == before:
                    raise UnreachableError(
                        f"{there.name} has taken no byte of the {what} for {patience:g} s: is the network cut, "
                        "or a disk there full or hung?"
                    )
            await sending
        finally:
            sending.cancel()
            await asyncio.wait((sending,))

    async def _say_that_we_are_here(self, journey: Journey) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            with contextlib.suppress(AgentError):
                await self._ask(journey, "outcome", {"move": journey.id, "wait": 0.0})

    async def _ask(self, journey: Journey, name: str, request: Message, seconds: float = 0.0) -> Message:
        limit = seconds or self._limit
        return await self._transport.ask(journey.there.address, name, request, limit, journey.there.name)

    @property
    def _limit(self) -> float:
        return self._config.deadlines.peer

    @property
    def _long(self) -> float:
        """For what an engine does."""
        return 6 * self._config.deadlines.peer


_BY_THE_TEXT = "see docs/verbs.md, and `migrrdma status`"


def _choose_mounts(journey: Journey, missing: list[str], nameless: list[str]) -> list[Message]:
    """Choose what goes along of what is not there; what cannot is an obstacle."""
    mounts = {one.called: one for one in journey.engine.mounts(journey.container)}
    wanted = [*missing, *nameless]
    journey.mounts = [mounts[one] for one in wanted if one in mounts]
    journey.nameless = nameless
    found = [
        {
            "what": f"{one}, which it mounts, cannot be brought along: only folders and plain local volumes can",
            "remedy": f"bring it to {journey.there.name}",
        }
        for one in wanted
        if one not in mounts
    ]
    sources = {one.source: one.called for one in journey.mounts}
    for other in journey.engine.containers() if sources else ():
        if not other.running or other.id == journey.container.id:
            continue
        for one in journey.engine.mounts(other):
            if one.writable and one.source in sources:
                found.append(
                    {
                        "what": f"container {other.name} writes to {sources[one.source]}, too",
                        "remedy": f"stop {other.name}: two hosts cannot write to one volume",
                    }
                )
    return found


def _empty(images: Path) -> None:
    """Have what was sent take no room here; of the rounds before, CRIU asks only which pages they have."""
    for one in images.glob("pages-*.img"):
        os.truncate(one, 0)


def _has_port(destination: str) -> bool:
    _, colon, port = destination.rpartition(":")
    return bool(colon) and port.isdecimal() and (destination.count(":") == 1 or "]:" in destination)


def _memory_of(pid: int) -> int:
    """Bytes that the processes of its cgroup use, or it alone where that is not known."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
        path = next(line[3:] for line in lines if line.startswith("0::"))
        return int(Path(f"/sys/fs/cgroup{path}/memory.current").read_text(encoding="ascii"))
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * 4096
    return 0
