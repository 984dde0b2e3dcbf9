"""A container that comes to this host: made, filled, started; or removed again, unless it is the only copy.

Its engine starts it before what it is restored from is here: network, mounts and shim cost the application no time
then. Our runtime, asked to create it, finds that something is awaited for it (``shim/staged.py``), and asks here.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from migrrdma_runtime.agent.peers.certificates import Identity
from migrrdma_runtime.agent.peers.transport import Handlers, StreamHandlers
from migrrdma_runtime.base.errors import AgentError, MigrRDMAError, RefusedError
from migrrdma_runtime.engine.description import Description
from migrrdma_runtime.engine.docker_description import ANONYMOUS
from migrrdma_runtime.engine.engine import Container, Engine
from migrrdma_runtime.mover import brought, facts, guest_library, layer, streams
from migrrdma_runtime.mover.agent_here import COMMITTED, AgentHere
from migrrdma_runtime.mover.book import Arriving, Book
from migrrdma_runtime.mover.dump import ROUNDS
from migrrdma_runtime.shim.staged import AWAITED
from migrrdma_runtime.wire.agent_messages import Message

_log = logging.getLogger(__name__)

SILENCE_S = 60.0
"""A source that says nothing for so long has gone: what was made for it is removed, unless it is the only copy."""

_LOOK_S = 1.0


@dataclass
class _Live:
    """What is not in the book: it ends with the mover."""

    heard: float = field(default_factory=time.monotonic)
    awaits: asyncio.Event = field(default_factory=asyncio.Event)
    """The runtime has come to wait for what is restored."""
    is_here: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """What it waits for; an error: it will not come."""
    start: asyncio.Task[None] | None = None
    files: dict[str, Path] = field(default_factory=dict)
    """Its writable layer, by no name, and what was made for it, by where it mounts that.

    An engine that is starting it would not say where they are.
    """
    new_root: bool = False
    """The layer has changed since the engine began to start it, and may have mounted it."""
    streaming: int = 0


def _unfinished(move: str) -> str:
    return f"migrrdma-{move}"


class Arrivals:
    """Every container that comes to this host."""

    def __init__(
        self,
        book: Book[Arriving],
        agent: AgentHere,
        staged: Path,
        guest_dir: Path,
        engine: Callable[[str], Engine],
    ) -> None:
        self._book = book
        self._agent = agent
        self._staged = staged
        self._guest_dir = guest_dir
        self._engine = engine
        self._live: dict[str, _Live] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self.handlers: Handlers = {
            "look": self.look,
            "receive": self.receive,
            "start": self.start,
            "outcome": self.outcome,
            "drop": self.drop,
            "finish": self.finish,
        }
        self.streams: StreamHandlers = {
            "image": self.take_image,
            "guest": self.take_guest,
            "layer": self.take_layer,
            "stays": self.take_what_stays,
            "round": self.take_round,
            "images": self.take_images,
        }

    async def look(self, _caller: Identity, request: Message) -> Message:
        """Everything that would hinder the container here, at once."""
        wanted = Description.from_message(request["description"])
        engine = self._engine(wanted.engine)
        obstacles = await asyncio.to_thread(engine.obstacles, wanted)
        brought = [one.mount for one in obstacles if one.mount] if request["with_volumes"] else []
        found = [
            {"what": one.what, "remedy": one.remedy}
            for one in obstacles
            if one.mount not in brought or not one.mount
        ]
        found += await asyncio.to_thread(facts.obstacles, request["facts"])
        free = shutil.disk_usage(self._existing_staged()).free
        if free < request["bytes"]:
            found.append(
                {
                    "what": f"{self._staged} has {free >> 20} MiB left, and {request['bytes'] >> 20} MiB are to come",
                    "remedy": "make room there, or set staged_dir in config.toml",
                }
            )
        return {
            "obstacles": found,
            "has_image": await asyncio.to_thread(engine.has_image, wanted.image_id),
            "layers": await asyncio.to_thread(engine.layers_here, request["layers"]),
            "mounts": brought,
            "guests": [one for one in request["guests"] if not (self._guest_dir / one).is_dir()],
        }

    async def receive(self, caller: Identity, request: Message) -> Message:
        """Make the container, not started."""
        move, wanted = request["move"], Description.from_message(request["description"])
        async with self._lock(move):
            if move in self._book.moves:
                raise RefusedError(f"move {move} is here already")
            engine = self._engine(wanted.engine)
            arriving = Arriving(move, caller.name, wanted.engine, wanted.name, wanted.restart)
            mounts = await asyncio.to_thread(brought.missing, engine, wanted, request["mounts"])
            arriving.made = brought.with_parents(mounts)
            self._book.write(arriving)
            self._live[move] = _Live()
            try:
                await asyncio.to_thread(brought.make_folders, arriving.made)
                # Until its id is written down it has a name by which the next mover finds it.
                unfinished = replace(wanted, name=_unfinished(move))
                container = await asyncio.to_thread(engine.create, unfinished)
                self._book.write(arriving, container=container.id)
                await asyncio.to_thread(engine.rename, container, wanted.name)
                root = await asyncio.to_thread(engine.layer, container)
                fresh = [
                    one
                    for one in await asyncio.to_thread(engine.mounts, container)
                    if one.called in arriving.made or ANONYMOUS.fullmatch(one.name)
                ]
                for one in fresh:
                    # Docker copies into a new volume what the image has there, and the application may have removed.
                    await layer.keep_only(one.source, layer.told({"": []}))
                self._live[move].files = {"": root, **{one.target: one.source for one in fresh}}
            except MigrRDMAError as error:
                await self._remove(arriving, tried=True)
                self._book.write(arriving, state="failed", ended=True, error=str(error))
                raise
            self._await(container.id, move)
        return {"container": container.id}

    async def take_image(self, _caller: Identity, header: Message, chunks: AsyncIterator[bytes]) -> Message:
        """Load an image; it is its engine's from then on, whatever becomes of the move."""
        engine = self._engine(header["engine"])
        blocks = streams.in_a_thread(chunks, asyncio.get_running_loop())
        await asyncio.to_thread(engine.load_image, blocks, header["image"])
        return {}

    async def take_guest(self, _caller: Identity, header: Message, chunks: AsyncIterator[bytes]) -> Message:
        """Keep a version of the guest library, whatever becomes of the move."""
        await guest_library.write(self._guest_dir, header["guest"], chunks)
        return {}

    async def take_layer(self, caller: Identity, header: Message, chunks: AsyncIterator[bytes]) -> Message:
        """Fill the writable layer."""
        arriving, root = self._files_of(caller, header)
        await streams.write_layer(root, self._heard(arriving, chunks))
        return {}

    async def take_what_stays(
        self, caller: Identity, header: Message, chunks: AsyncIterator[bytes]
    ) -> Message:
        """Remove from the writable layer what has gone, or changed, at its source."""
        arriving, root = self._files_of(caller, header)
        await layer.keep_only(root, self._heard(arriving, chunks))
        return {}

    def _files_of(self, caller: Identity, header: Message) -> tuple[Arriving, Path]:
        arriving, mount = self._of(caller, header["move"]), header["mount"]
        live = self._live[arriving.id]
        if live.is_here.done() or not live.files:
            raise RefusedError(f"move {arriving.id} takes no files any more")
        if mount not in live.files:
            raise RefusedError(f"move {arriving.id} has made nothing new here for {mount}: it stays as it is")
        self._require_awaited(arriving, live)
        live.new_root = live.new_root or (live.start is not None and not mount)
        return arriving, live.files[mount]

    async def take_round(self, caller: Identity, header: Message, chunks: AsyncIterator[bytes]) -> Message:
        """Take memory that comes ahead, to where the restore will look for it."""
        arriving = self._of(caller, header["move"])
        live = self._live[arriving.id]
        if live.is_here.done() or not arriving.container:
            raise RefusedError(f"move {arriving.id} takes no memory now")
        self._require_awaited(arriving, live)
        folder = self._staged / arriving.container / ROUNDS / str(header["number"])
        try:
            folder.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise AgentError(f"{folder}: {error.strerror}") from error
        await streams.write_folder(folder, self._heard(arriving, chunks))
        return {}

    async def take_images(self, caller: Identity, header: Message, chunks: AsyncIterator[bytes]) -> Message:
        """Take what the container is restored from, and have its runtime go on."""
        arriving = self._of(caller, header["move"])
        live = self._live[arriving.id]
        if live.is_here.done():
            raise RefusedError(f"move {arriving.id} has come to its end here already")
        self._require_awaited(arriving, live)
        await streams.write_folder(self._staged / arriving.container, self._heard(arriving, chunks))
        self._require_awaited(arriving, live)
        self._book.write(arriving, state="restoring")
        (self._staged / arriving.container / AWAITED).unlink(missing_ok=True)
        if not live.is_here.done():
            live.is_here.set_result(None)
        return {}

    async def start(self, caller: Identity, request: Message) -> Message:
        """Have the engine start it; answered when its runtime has come to wait for the rest, or has failed."""
        arriving = self._of(caller, request["move"])
        live = self._live[arriving.id]
        if live.start is None:
            self._book.write(arriving, state="starting")
            live.start = asyncio.ensure_future(self._start(arriving))
        awaits = asyncio.ensure_future(live.awaits.wait())
        try:
            await asyncio.wait((live.start, awaits), return_when=asyncio.FIRST_COMPLETED)
        finally:
            awaits.cancel()
        return {"state": arriving.state, "error": arriving.error}

    async def outcome(self, caller: Identity, request: Message) -> Message:
        """How it stands, when that is decided or the asker's time is over."""
        arriving = self._of(caller, request["move"], ended=True)
        live = self._live.get(arriving.id)
        if live is not None and live.start is not None and request["wait"]:
            await asyncio.wait((live.start,), timeout=request["wait"])
        restored = None
        if arriving.state == "running":
            restored = await self._agent.restored(arriving.container)
        known = restored or {}
        return {
            "state": arriving.state,
            "error": arriving.error[:4096],
            "timeline": known.get("timeline", []),
            "downtime": known.get("downtime") or 0.0,
            "blackouts": known.get("blackouts", {}),
            "lost": [str(one)[:4096] for one in known.get("lost", [])],
        }

    async def drop(self, caller: Identity, request: Message) -> Message:
        """Remove what was made of it, unless it is the only copy."""
        arriving = self._book.moves.get(request["move"])
        if arriving is None or arriving.source != caller.name:
            return {"dropped": True}
        return {"dropped": await self._drop(arriving, request["reason"])}

    async def finish(self, caller: Identity, request: Message) -> Message:
        """It is over at its source: have its engine start it again when it used to."""
        arriving = self._of(caller, request["move"], ended=True)
        if arriving.state == "running" and not arriving.ended:
            await self._settle(arriving)
        return {}

    async def awaited(self, container: str) -> bool:
        """Have the runtime that is to create it wait until everything is here; `AgentError`: it will not be.

        True: its root, which its engine has mounted by now, is to be mounted anew.
        """
        arriving = next((one for one in self._book.under_way() if one.container == container), None)
        live = self._live.get(arriving.id) if arriving is not None else None
        if arriving is None or live is None:
            raise RefusedError(
                f"container {container:.12} was to come from another host, which has given that up: remove it here"
            )
        if arriving.state == "starting":
            self._book.write(arriving, state="awaiting")
        live.awaits.set()
        await asyncio.shield(live.is_here)
        return live.new_root

    def moves(self) -> list[Message]:
        """Every container that has come here, or was to, oldest first."""
        return [
            {
                "move": one.id,
                "container": one.name,
                "engine": one.engine,
                "source": one.source,
                "state": one.state,
                "started": one.started,
                "error": one.error,
            }
            for one in sorted(self._book.moves.values(), key=lambda one: one.started)
        ]

    async def recover(self) -> None:
        """After a start: keep what has arrived, remove what has not; nobody waits for it any more."""
        await asyncio.gather(*(self._recover(one) for one in self._book.under_way()))

    async def _recover(self, arriving: Arriving) -> None:
        while not arriving.ended:
            try:
                if arriving.state == "running" or not await self._drop(
                    arriving, "the mover of this host was restarted"
                ):
                    await self._settle(arriving)
            except MigrRDMAError as error:  # the engine or the agent is not there yet
                _log.warning("move %s: %s; tried again", arriving.id, error)
                await asyncio.sleep(_LOOK_S)

    async def stop(self) -> None:
        """Wait for nobody any more; what an engine is starting it goes on to start, and the next mover finds it."""
        starts = [one.start for one in self._live.values() if one.start is not None]
        for one in starts:
            one.cancel()
        await asyncio.gather(*starts, return_exceptions=True)

    async def watch(self) -> None:
        """Remove what was made for a source that has gone."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for arriving in self._book.under_way():
                live = self._live.get(arriving.id)
                if live is None or live.streaming or time.monotonic() - live.heard < SILENCE_S:
                    continue
                live.heard = time.monotonic()  # once more only after as long
                try:
                    if not await self._drop(
                        arriving, f"{arriving.source} has said nothing for {SILENCE_S:g} s"
                    ):
                        await self._settle(arriving)
                except MigrRDMAError as error:
                    _log.warning("move %s: %s; tried again", arriving.id, error)

    # --- steps ----------------------------------------------------------------------------------------------

    async def _start(self, arriving: Arriving) -> None:
        error = ""
        try:
            container = await self._container(arriving)
            await asyncio.to_thread(self._engine(arriving.engine).start, container, "")
        except MigrRDMAError as problem:
            error = str(problem)
        while True:
            try:
                return await self._conclude(arriving, error)
            except MigrRDMAError as problem:  # the agent is being started anew, or the disk is full
                _log.warning("move %s: %s; tried again", arriving.id, problem)
                await asyncio.sleep(_LOOK_S)

    async def _conclude(self, arriving: Arriving, error: str) -> None:
        if await self._is_here(arriving):
            if error:
                _log.warning(
                    "move %s: it is restored and committed, but its engine says: %s", arriving.id, error
                )
            self._book.write(arriving, state="running")
        else:
            self._book.write(
                arriving, state="failed", error=error or "it was started, and restored from nothing"
            )

    async def _is_here(self, arriving: Arriving) -> bool:
        restored = await self._agent.restored(arriving.container)
        return restored is not None and restored["state"] in COMMITTED

    async def _settle(self, arriving: Arriving) -> None:
        """Leave it to its engine, as it was at its source; an error: tried again."""
        engine = self._engine(arriving.engine)
        # Nothing is restored from these once more, should its engine have died before it had it start.
        await asyncio.to_thread(shutil.rmtree, self._staged / arriving.container, ignore_errors=True)
        if await self._is_known(arriving):
            container = await self._container(arriving)
            await asyncio.to_thread(engine.set_restart, container, arriving.restart)
        self._book.write(arriving, ended=True)
        self._forget(arriving)

    async def _drop(self, arriving: Arriving, reason: str) -> bool:
        async with self._lock(arriving.id):
            # Of one that has come its engine's user may have removed the container since: its volumes stay.
            if arriving.ended or arriving.state == "running":
                return arriving.state != "running"
            live = self._live.get(arriving.id)
            if live is not None and not live.is_here.done():
                live.is_here.set_exception(RefusedError(f"move {arriving.id} was given up: {reason}"))
                live.is_here.exception()  # nobody may be waiting for it
            if arriving.container:
                restored = await self._agent.restored(arriving.container)
                if restored is not None and restored["state"] not in (*COMMITTED, "released"):
                    await self._agent.give_back(restored["migration"])
            if live is not None and live.start is not None:
                await asyncio.wait((live.start,))
            # A start that an earlier mover has asked for may be under way, and be committed: not before it is over
            # is it known whether this is the only copy.
            if arriving.container and await self._is_known(arriving) and await self._is_here(arriving):
                self._book.write(arriving, state="running")
                return False
            _log.info("move %s is removed here: %s", arriving.id, reason)
            await self._remove(arriving)
            self._book.write(arriving, state="failed", ended=True, error=arriving.error or reason)
            self._forget(arriving)
        return True

    async def _remove(self, arriving: Arriving, *, tried: bool = False) -> None:
        """Remove all that was made; an engine that was never asked (``tried``) has made no volume of that name."""
        engine = self._engine(arriving.engine)
        found = arriving.container or _unfinished(arriving.id)
        if not arriving.container and not tried:
            others = await asyncio.to_thread(engine.containers)
            tried = any(one.name == found for one in others)
        container = Container(id=found, name=arriving.name, runtime="", running=False)
        await asyncio.to_thread(engine.remove, container)
        used = await asyncio.to_thread(brought.used, engine, arriving.container) if arriving.made else []
        for one in reversed(arriving.made):
            if any(f"{other}/".startswith(f"{one}/") for other in used):
                _log.warning("move %s: %s stays: another container has come to use it", arriving.id, one)
            elif one.startswith("/"):
                await asyncio.to_thread(brought.remove_folder, one, filled=bool(arriving.container))
            elif arriving.container or tried:
                await asyncio.to_thread(engine.remove_volume, one)
        if not arriving.container:
            return
        await asyncio.to_thread(shutil.rmtree, self._staged / arriving.container, ignore_errors=True)

    async def _is_known(self, arriving: Arriving) -> bool:
        """Whether its engine still has it, once no start of it is under way: a person may have removed it."""
        return await asyncio.to_thread(self._engine(arriving.engine).knows, arriving.container)

    @staticmethod
    def _require_awaited(arriving: Arriving, live: _Live) -> None:
        """The runtime that waits for the rest may have been killed: then nothing more will come of it."""
        if live.start is not None and live.start.done():
            raise RefusedError(f"move {arriving.id} has failed here: {arriving.error}")

    async def _container(self, arriving: Arriving) -> Container:
        return await asyncio.to_thread(self._engine(arriving.engine).container, arriving.container)

    def _await(self, container: str, move: str) -> None:
        """Have the container's next start wait for what is to come."""
        folder = self._existing_staged() / container
        try:
            folder.mkdir(mode=0o700)
            (folder / AWAITED).write_text(f"{move}\n", encoding="ascii")
        except OSError as error:
            raise AgentError(f"{folder}: {error.strerror}") from error

    def _existing_staged(self) -> Path:
        try:
            self._staged.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise AgentError(f"{self._staged}: {error.strerror}") from error
        return self._staged

    async def _heard(self, arriving: Arriving, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        live = self._live[arriving.id]
        live.streaming += 1
        try:
            async for chunk in chunks:
                live.heard = time.monotonic()
                yield chunk
        finally:
            live.streaming -= 1

    def _of(self, caller: Identity, move: str, *, ended: bool = False) -> Arriving:
        """The move, if it is the caller's, who is heard by that."""
        arriving = self._book.moves.get(move)
        if arriving is None or arriving.source != caller.name:
            raise RefusedError(f"no move {move} from {caller.name} comes here")
        if arriving.ended and not ended:
            raise RefusedError(f"move {move} has ended here: {arriving.error or arriving.state}")
        if live := self._live.get(move):
            live.heard = time.monotonic()
        return arriving

    def _forget(self, arriving: Arriving) -> None:
        self._live.pop(arriving.id, None)
        self._locks.pop(arriving.id, None)

    def _lock(self, move: str) -> asyncio.Lock:
        return self._locks.setdefault(move, asyncio.Lock())
