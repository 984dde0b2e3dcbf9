"""Print for how long an agent's loop is busy when it has started and all the guests of its host connect at once.

The guests are connections of processes that have ended since: all that is theirs is a number, of which the kernel tells
the agent, and below a folder that stands for /proc a cgroup. Each is in a container of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import tempfile
import time
from pathlib import Path

from migrrdma_runtime.agent.local.containers import Containers
from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.guests import Guests
from migrrdma_runtime.wire.guest_messages import WIRE


def make_guest(root: Path, number: int) -> tuple[socket.socket, int]:
    """A socket whose owner is another process, recorded as the first one of a container; its process id."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connect, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.read(connect, 1)
        connection.connect(str(root / "agent/guest.sock"))
        os._exit(0)
    os.close(connect)
    folder, record = root / "proc" / str(pid), root / "containers" / f"{number:064x}"
    folder.mkdir(parents=True)
    (folder / "cgroup").write_text(f"0::/system.slice/docker-{number:064x}.scope\n")
    (folder / "comm").write_text("application\n")
    record.mkdir(parents=True)
    (record / "state.json").write_text(json.dumps({"pid": pid}))
    os.utime(record / "state.json", (0, 0))  # made long before the agent was started
    return connection, go


async def measure(root: Path, guests: list[tuple[socket.socket, int]]) -> tuple[float, float]:
    """Seconds of processor time of the whole loop, and of its longest turn, until all are connected."""
    loop, came, everybody = asyncio.get_running_loop(), 0, asyncio.Event()

    def on_connect(_guest: Guest) -> None:
        nonlocal came
        came += 1
        if came == len(guests):
            everybody.set()

    local = Guests(Containers(root, root / "proc"), root / "agent/guest.sock", on_connect)
    local.listen()
    longest, last = 0.0, time.process_time()

    def turn() -> None:
        nonlocal longest, last
        now = time.process_time()
        longest, last = max(longest, now - last), now
        loop.call_soon(turn)

    start = time.process_time()
    turn()
    for number, (connection, go) in enumerate(guests):
        ours = time.process_time()
        os.write(go, b"!")
        os.close(go)
        os.wait()
        ours = time.process_time() - ours  # not the agent's
        start, last = start + ours, last + ours
        hello = {"token": number + 1, "pid": 7, "state": 1, "contexts": 1, "build_id": bytes(20)}
        connection.send(WIRE.pack("HELLO", hello))
        await asyncio.sleep(0)
    async with asyncio.timeout(120):
        await everybody.wait()
    spent = time.process_time() - start
    await local.close()
    return spent, longest


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guests", type=int, nargs="+", default=[10, 100, 1000])
    for count in parser.parse_args().guests:
        with tempfile.TemporaryDirectory() as folder:
            guests = [make_guest(Path(folder), number) for number in range(count)]
            spent, longest = asyncio.run(measure(Path(folder), guests))
        print(
            f"{count:5} guests: the loop is busy for {spent:.3f} s in all, {1000 * longest:.1f} ms at a stretch"
        )


if __name__ == "__main__":
    main()
