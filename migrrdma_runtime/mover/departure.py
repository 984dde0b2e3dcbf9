"""A container that leaves this host: from the first look to the receipt.

:meth:`Departures.migrate` is the whole of it; the rest are its steps. Until the agents have committed it, everything
that was done is undone again: the container here goes on, and what was made of it there is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from migrrdma_runtime.agent.peers.agent_config import AgentConfig
from migrrdma_runtime.base.errors import (
    AgentError,
    EngineError,
    MigrRDMAError,
    RefusedError,
    StoreError,
    UsageError,
)
from migrrdma_runtime.engine.description import Description
from migrrdma_runtime.engine.engine import Container, Engine
from migrrdma_runtime.mover.agent_here import COMMITTED, AgentHere
from migrrdma_runtime.mover.book import Book, Departing
from migrrdma_runtime.mover.carriage import Carriage
from migrrdma_runtime.mover.dump import LowLevel, wait_for_dump
from migrrdma_runtime.mover.journey import Journey, Watcher
from migrrdma_runtime.mover.preflight import Preflight
from migrrdma_runtime.mover.there import There
from migrrdma_runtime.wire import tokens
from migrrdma_runtime.wire.agent_messages import Contact, Message

_log = logging.getLogger(__name__)

_HEARTBEAT_S = 10.0
"""How often the destination hears that the source is there, while nothing else is said."""
_ASK_S = 1.0
_NONE: Watcher = lambda _: None  # noqa: E731


class Departures:
    """Every container that leaves this host."""

    def __init__(
        self,
        book: Book[Departing],
        agent: AgentHere,
        there: There,
        config: AgentConfig,
        name: str,
        find: Callable[[str, str], tuple[Engine, Container]],
        low_level: Callable[[str, str], LowLevel] = LowLevel,
    ) -> None:
        self._book = book
        self._agent = agent
        self._there = there
        self._preflight = Preflight(agent, there, config.guest_dir)
        self._carriage = Carriage(there, book, config.guest_dir)
        self._doubt = config.deadlines.doubt
        self._name = name
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
            return {"move": "", "obstacles": await self._preflight.obstacles(journey)}
        with self._leaving_once(container):
            return await self._migrate(await self._begin(engine, container, options, watcher))

    async def _migrate(self, journey: Journey) -> Message:
        journey.task = asyncio.current_task()
        self._under_way[journey.id] = journey
        try:
            self._book.write(journey.departing)
            async with journey.step("looking"):
                await self._preflight.require_none(journey)
            alive = asyncio.ensure_future(self._say_that_we_are_here(journey))
            try:
                await self._carriage.carry(journey)
            finally:
                alive.cancel()
        except (Exception, asyncio.CancelledError) as error:
            journey.task = None  # a cancel that comes now would only stop the undoing
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
            await self._there.ask_at(there, name, request)
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
        there = await self._there.greet(options["destination"])
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
            state, patience = "", self._doubt - (clock() - begin)
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
            answer = await self._there.ask(journey, "outcome", {"move": journey.id, "wait": 0.0})
        except AgentError:  # a host that has died with it does not say so
            return patience < 0
        return bool(answer["state"] == "running")

    async def _drop(self, journey: Journey, why: str) -> None:
        with contextlib.suppress(AgentError):
            await self._there.ask(
                journey, "drop", {"move": journey.id, "reason": why[:4096]}, seconds=self._there.long
            )

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
            await self._there.ask(journey, "finish", {"move": journey.id})
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
        # A step that was cancelled when it was too late for that has no time.
        if journey.expected and journey.steps_end_well:
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

    async def _say_that_we_are_here(self, journey: Journey) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            with contextlib.suppress(AgentError):
                await self._there.ask(journey, "outcome", {"move": journey.id, "wait": 0.0})
