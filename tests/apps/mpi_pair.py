"""Two ranks of MPI that exchange messages, by sends and one-sided, and compare what arrived, until /tmp/stop is there.

Usage, under a launcher: mpi_pair.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, "/apps/mpi4py==4.1.2")

from mpi4py import MPI

STOP = Path("/tmp/stop")
SIZES = (8, 4096, 1 << 20)
"""Within the request, in one message, and by rendezvous."""


def main() -> int:
    world = MPI.COMM_WORLD
    rank = world.rank
    other = 1 - rank
    window = MPI.Win.Allocate(SIZES[-1], comm=world)
    rounds, said, going = 0, time.monotonic(), True
    print(f"rank {rank} of {world.size} on {MPI.Get_library_version().splitlines()[0]}", flush=True)
    while going:
        for size in SIZES:
            mine, theirs = (bytes([(rounds + r) & 0xFF]) * size for r in (rank, other))
            got = bytearray(size)
            world.Sendrecv(mine, other, 0, got, other, 0)
            if got != theirs:
                print(
                    f"rank {rank}: a message of {size} bytes in round {rounds} is not what was sent",
                    flush=True,
                )
                return 1
            window.Fence()
            window.Put(mine, other)
            window.Fence()
            if bytes(window.tomemory()[:size]) != theirs:
                print(f"rank {rank}: {size} bytes in round {rounds} are not what was put", flush=True)
                return 1
        rounds += 1
        going = world.bcast(not STOP.exists())
        if rank == 0 and time.monotonic() - said >= 1:
            said = time.monotonic()
            print(f"{rounds} rounds", flush=True)
    window.Free()
    print(f"rank {rank}: ok, {rounds} rounds", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
