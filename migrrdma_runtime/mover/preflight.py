"""What would hinder a move, on either host: everything at once, each with its remedy, before anything is touched.

By the way it is learnt what of the container need not be sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from migrrdma_runtime.base.errors import AgentError, RefusedError
from migrrdma_runtime.engine.docker_description import ANONYMOUS
from migrrdma_runtime.mover import connections, facts
from migrrdma_runtime.mover.agent_here import AgentHere
from migrrdma_runtime.mover.journey import Journey
from migrrdma_runtime.mover.there import There
from migrrdma_runtime.wire.agent_messages import Message

_BY_THE_TEXT = "see docs/verbs.md, and `migrrdma status`"


class Preflight:
    """Looks at both hosts."""

    def __init__(self, agent: AgentHere, there: There, guest_dir: Path) -> None:
        self._agent = agent
        self._there = there
        self._guest_dir = guest_dir

    async def obstacles(self, journey: Journey) -> list[Message]:
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
            "bytes": await asyncio.to_thread(memory_of, journey.container.pid),
            "facts": await asyncio.to_thread(facts.of_this_host),
            "guests": guests,
            "layers": await asyncio.to_thread(journey.engine.layers, journey.description.image_id),
            "with_volumes": with_volumes,
        }
        # It asks its engine, and CRIU for its version: on a busy host that takes its time.
        answer = await self._there.ask(journey, "look", request, seconds=self._there.long)
        for one in answer["obstacles"]:
            found.append({"what": f"{journey.there.name}: {one['what']}", "remedy": one["remedy"]})
        journey.has_image, journey.layers = answer["has_image"], answer["layers"]
        journey.guests = answer["guests"]
        for one in journey.guests:
            if not (self._guest_dir / one).is_dir():
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

    async def require_none(self, journey: Journey) -> None:
        """Refuse the move if there is any."""
        found = await self.obstacles(journey)
        journey.watcher({"move": journey.id, "obstacles": found})
        if found:
            lines = "; ".join(f"{one['what']} ({one['remedy']})" for one in found)
            raise RefusedError(f"{journey.departing.name} cannot be moved to {journey.there.name}: {lines}")


def _choose_mounts(journey: Journey, missing: list[str], nameless: list[str]) -> list[Message]:
    """Choose what goes along of what is not there; what cannot is an obstacle."""
    all_of_it = journey.engine.mounts(journey.container)
    mounts = {one.called: one for one in all_of_it}
    # Also those that are empty yet: they are removed here with the container.
    nameless = list(
        dict.fromkeys([*nameless, *(one.name for one in all_of_it if ANONYMOUS.fullmatch(one.name))])
    )
    wanted = [*missing, *nameless]
    journey.mounts = [mounts[one] for one in wanted if one in mounts]
    journey.targets = {
        one.target: [other.target for other in all_of_it if other.source == one.source]
        for one in journey.mounts
    }
    journey.nameless = nameless
    found = [
        {
            "what": f"{one}, which it mounts, cannot be brought along: only folders and plain local volumes can",
            "remedy": f"bring it to {journey.there.name}",
        }
        for one in wanted
        if one not in mounts
    ]
    sources = {one.source.resolve(): one.called for one in journey.mounts}
    for other in journey.engine.containers() if sources else ():
        if not other.running or other.id == journey.container.id:
            continue
        for one in journey.engine.mounts(other):
            # Into it, or into a part of it.
            source = one.source.resolve()
            shared = next((sources[path] for path in (source, *source.parents) if path in sources), "")
            if one.writable and shared:
                found.append(
                    {
                        "what": f"container {other.name} writes to {shared}, too",
                        "remedy": f"stop {other.name}: two hosts cannot write to one volume",
                    }
                )
    return found


def memory_of(pid: int) -> int:
    """Bytes that the processes of its cgroup use, or it alone where that is not known."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
        path = next(line[3:] for line in lines if line.startswith("0::"))
        return int(Path(f"/sys/fs/cgroup{path}/memory.current").read_text(encoding="ascii"))
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * 4096
    return 0
