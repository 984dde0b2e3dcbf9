"""Many containers of one host checkpointed at once: their processes and runtimes are all in this process."""

from __future__ import annotations

import asyncio
import random
import time

from changing_guest import ChangingGuest
from cluster import Cluster
from runtime_lines import RuntimeLines

from migrrdma_runtime.base import gids

_RUNNING = 1


async def checkpoint_at_once(hosts: Cluster, count: int) -> float:
    """Seconds of processor time for each of so many containers with two queue pairs that face each other."""
    host = await hosts.host("src", 2)
    guests: list[ChangingGuest] = []
    here = gids.packed(host.gid)
    for number in range(count):
        same = {"context": 1, "type": 2, "state": 3, "port": 1, "sgid_index": 1, "sgid": here, "dgid": here}
        ends = ((0x1000 + 2 * number, 0x1001 + 2 * number), (0x1001 + 2 * number, 0x1000 + 2 * number))
        pairs = [
            {**same, "vqpn": one, "pqpn": one, "dest_vqpn": other, "dest_pqpn": other} for one, other in ends
        ]
        host.containers.everybody_else = f"c{number}"
        guest = ChangingGuest(random.Random(), host.config.guest_socket, f"{number:016x}", pairs, changes=0)  # noqa: S311
        assert await guest.connect(_RUNNING, changes=0)
        guests.append(guest)

    async def checkpoint(number: int) -> None:
        runtime = RuntimeLines(host.config.runtime_socket)
        ready = await runtime.say(
            {
                "op": "checkpoint",
                "container": f"c{number}",
                "leave_running": False,
                "move": "",
                "only_for": "",
            }
        )
        assert "ready" in ready, ready
        done = await runtime.report(ready)
        assert done["done"]["parked"]
        await runtime.close()

    start = time.process_time()
    async with asyncio.timeout(60):
        await asyncio.gather(*map(checkpoint, range(count)))
    spent = time.process_time() - start
    for guest in guests:
        await guest.close()
    return spent / count
