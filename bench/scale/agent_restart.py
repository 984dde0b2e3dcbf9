"""Print for how long an agent's loop is busy when it has started and all the guests of its host connect at once.

Each guest is a process of its own that does nothing but connect, in a container of its own: the kernel tells the agent
its number, and a folder that stands for /proc its cgroup.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from migrrdma_runtime.agent.local.containers import Containers
from migrrdma_runtime.agent.local.guest import Guest
from migrrdma_runtime.agent.local.guests import Guests
from migrrdma_runtime.base import paths
from migrrdma_runtime.wire.guest_messages import WIRE


@dataclass
class Process:
    """A guest: its connection, and the pipes by which it is told to connect, says that it has, and is ended."""

    connection: socket.socket
    connect: int
    connected: int
    pid: int


def start(root: Path, number: int) -> Process:
    """A process that is the first one of a container."""
    container = f"{number:032x}"
    folder = root / paths.CONTAINERS_DIR / container
    (folder / paths.GUEST_SOCKET_DIR).mkdir(parents=True)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    (told, connect), (connected, tell) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(connect)
        os.read(told, 1)
        connection.connect(str(folder / paths.GUEST_SOCKET_DIR / paths.GUEST_SOCKET))
        os.write(tell, b"!")
        os.read(told, 1)
        os._exit(0)
    os.close(told)
    os.close(tell)
    known = root / "proc" / str(pid)
    known.mkdir(parents=True)
    (known / "cgroup").write_text(f"0::/system.slice/docker-{container}.scope\n")
    (known / "comm").write_text("application\n")
    (folder / "state.json").write_text(json.dumps({"pid": pid}))
    os.utime(folder / "state.json", (0, 0))  # made long before the agent was started
    return Process(connection, connect, connected, pid)


async def measure(root: Path, guests: list[Process]) -> tuple[float, float]:
    """Seconds of processor time of the whole loop, and of its longest turn, until all are connected."""
    loop, came, everybody = asyncio.get_running_loop(), 0, asyncio.Event()

    def on_connect(_guest: Guest) -> None:
        nonlocal came
        came += 1
        if came == len(guests):
            everybody.set()

    start = time.process_time()
    local = Guests(Containers(root, root / "proc"), root, on_connect)
    local.listen()
    longest, last = time.process_time() - start, time.process_time()

    def turn() -> None:
        nonlocal longest, last
        now = time.process_time()
        longest, last = max(longest, now - last), now
        loop.call_soon(turn)

    turn()
    for number, guest in enumerate(guests):
        ours = time.process_time()
        os.write(guest.connect, b"!")
        os.read(guest.connected, 1)
        hello = {"token": number + 1, "pid": 7, "state": 1, "contexts": 1, "build_id": bytes(20)}
        guest.connection.send(WIRE.pack("HELLO", hello))
        ours = time.process_time() - ours  # not the agent's
        start, last = start + ours, last + ours
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
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    for count in parser.parse_args().guests:
        with tempfile.TemporaryDirectory() as folder:
            guests = [start(Path(folder), number) for number in range(count)]
            try:
                spent, longest = asyncio.run(measure(Path(folder), guests))
            finally:
                for guest in guests:
                    os.write(guest.connect, b"!")
                    os.waitpid(guest.pid, 0)
                    os.close(guest.connect)
                    os.close(guest.connected)
                    guest.connection.close()
        print(
            f"{count:5} guests: the loop is busy for {spent:.3f} s in all, {1000 * longest:.1f} ms at a stretch"
        )


if __name__ == "__main__":
    main()
