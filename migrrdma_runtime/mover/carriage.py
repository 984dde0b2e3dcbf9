"""The way of a container to its other host, from the first byte to the commit; what fails is undone elsewhere."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from pathlib import Path
from typing import Any

from migrrdma_runtime.base.errors import EngineError, RefusedError
from migrrdma_runtime.mover import guest_library, mapped, streams
from migrrdma_runtime.mover.book import Book, Departing
from migrrdma_runtime.mover.dump import ROUNDS
from migrrdma_runtime.mover.journey import Journey
from migrrdma_runtime.mover.layer import Layer, told
from migrrdma_runtime.mover.preflight import memory_of
from migrrdma_runtime.mover.rounds import MOST_ROUNDS, WORTH_ROUNDS, Round, Rounds
from migrrdma_runtime.mover.there import There

_OUTCOME_S = 10.0
_LAST_MOVES = 9
"""So many tell what the next one will take."""
_OFF: dict[str, Any] = {"Name": "no", "MaximumRetryCount": 0}


class Carriage:
    """Carries containers to other hosts."""

    def __init__(self, there: There, book: Book[Departing], guest_dir: Path) -> None:
        self._there = there
        self._book = book
        self._guest_dir = guest_dir

    async def carry(self, journey: Journey) -> None:
        """Everything from the first byte to the commit."""
        departing, engine = journey.departing, journey.engine
        if not journey.has_image:
            async with journey.step("sending the image"):
                await self._send_image(journey)
        for one in journey.guests:
            library = guest_library.read(self._guest_dir, one)
            await self._there.send(journey, "guest", {"guest": one}, "guest library", library)
        async with journey.step("making the container"):
            await self._there.ask(
                journey,
                "receive",
                {
                    "move": journey.id,
                    "description": journey.description.as_message(),
                    "mounts": [one.called for one in journey.mounts if one.called not in journey.nameless],
                },
                seconds=self._there.long,
            )
        files = {"": Layer(await asyncio.to_thread(engine.layer, journey.container))}
        files |= {one.target: Layer(one.source) for one in journey.mounts}
        journey.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with journey.step("sending its files"):
            # Also those that are let go of before the end: their last changes may have left no trace.
            for mount, layer in files.items():
                # Again for each: what was mapped while those before were sent may be let go of, too.
                journey.mapped |= await asyncio.to_thread(mapped.written_to, journey.low_level.state)
                await asyncio.to_thread(layer.look)
                header = {"move": journey.id, "mount": mount}
                what = f"files in {mount}" if mount else "files"
                await self._there.send(journey, "layer", header, what, streams.read_layer(layer.root))
        rounds = await self._plan(journey)
        if rounds.go_on():
            await self._send_round(journey, rounds)
        async with journey.step("starting its engine there"):
            answer = await self._there.ask(journey, "start", {"move": journey.id}, seconds=self._there.long)
            if answer["state"] != "awaiting":
                raise EngineError(f"{journey.there.name}: {answer['error'] or answer['state']}")
        while rounds.done:
            left = await journey.low_level.marked()
            if not rounds.go_on(left):
                journey.expected = rounds.expected(left)
                break
            await self._send_round(journey, rounds)
        self._book.write(departing, state="stopping")
        turning_off = asyncio.ensure_future(asyncio.to_thread(engine.set_restart, journey.container, _OFF))
        try:
            await asyncio.shield(turning_off)
        except asyncio.CancelledError:
            # Whoever undoes this turns it on again: that must not come before.
            await asyncio.wait((turning_off,))
            raise
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
            await _require_nothing_behind(journey)
            journey.mapped |= await asyncio.to_thread(mapped.written_to, journey.low_level.state)
            for mount, layer in files.items():
                await self._send_rest_of_files(journey, layer, mount)
            total = await asyncio.to_thread(streams.size_of, images, ROUNDS)
            rest = streams.read_folder(images, without=ROUNDS)
            what = "memory, the rest" if rounds.done else "memory"
            await self._there.send(journey, "images", {"move": journey.id}, what, rest, total)
        async with journey.step("restoring there"):
            await self._restored(journey)

    async def _plan(self, journey: Journey) -> Rounds:
        """How many rounds of memory there may be: none where that is impossible, or nobody asked and it is little."""
        most, downtime = journey.options["rounds"], journey.options["max_downtime"]
        if most == 0:
            return Rounds(0, downtime)
        if most < 0 and await asyncio.to_thread(memory_of, journey.container.pid) < WORTH_ROUNDS:
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
            await self._there.send(journey, "round", header, what, streams.read_folder(images), total)
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
            answer = await self._there.ask(
                journey,
                "outcome",
                {"move": journey.id, "wait": _OUTCOME_S},
                seconds=_OUTCOME_S + self._there.limit,
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

    async def _send_image(self, journey: Journey) -> None:
        wanted = journey.description
        blocks = journey.engine.save_image(wanted.image_id, wanted.image, journey.layers)
        header = {"engine": wanted.engine, "image": wanted.image_id}
        await self._there.send(journey, "image", header, "image", streams.from_a_thread(blocks))

    async def _send_rest_of_files(self, journey: Journey, layer: Layer, mount: str) -> None:
        found = await asyncio.to_thread(layer.changes)
        header, where = {"move": journey.id, "mount": mount}, f" in {mount}" if mount else ""
        if found.stays:
            await self._there.send(journey, "stays", header, f"names of files{where}", told(found.stays))
        names = journey.mapped
        if mount:
            names = {one for target in journey.targets[mount] for one in mapped.within(names, target)}
        once_more = await asyncio.to_thread(mapped.with_all_names, layer.root, names)
        if files := sorted({*found.changed, *once_more}):
            rest = streams.read_files(layer.root, files)
            await self._there.send(journey, "layer", header, f"files{where}, the rest", rest)


async def _require_nothing_behind(journey: Journey) -> None:
    """A volume without a name that was empty at the first look may have been written to since."""
    for one in await asyncio.to_thread(journey.engine.left_behind, journey.container):
        if one.mount not in journey.nameless:
            raise RefusedError(f"{one.what} ({one.remedy})")


def _empty(images: Path) -> None:
    """Have what was sent take no room here; of the rounds before, CRIU asks only which pages they have."""
    for one in images.glob("pages-*.img"):
        os.truncate(one, 0)
