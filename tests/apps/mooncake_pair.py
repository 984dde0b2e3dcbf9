"""Mooncake's transfer engine by its Python API: writes what it then reads back and compares, until it is told to stop.

Usage: mooncake_pair.py ADDRESS            the end that lends its memory; prints where it is, and its contents' place
       mooncake_pair.py ADDRESS WHERE PLACE  the end that writes and reads
"""

from __future__ import annotations

import ctypes
import signal
import sys
import time

sys.path.insert(0, "/apps/mooncake-transfer-engine-non-cuda==0.3.13.post1")

from mooncake.engine import TransferEngine

SIZE = 1 << 20
stopped: list[int] = []


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    engine = TransferEngine()
    if engine.initialize(sys.argv[1], "P2PHANDSHAKE", "rdma", "rxe0"):
        print("not initialised", flush=True)
        return 1
    memory = ctypes.create_string_buffer(2 * SIZE)
    mine = ctypes.addressof(memory)
    if engine.register_memory(mine, 2 * SIZE):
        print("not registered", flush=True)
        return 1
    if len(sys.argv) == 2:
        print(f"lends {sys.argv[1].partition(':')[0]}:{engine.get_rpc_port()} {mine}", flush=True)
        while not stopped:  # the engine's own threads serve the other end
            time.sleep(0.1)
        return 0
    where, place = sys.argv[2], int(sys.argv[3])
    rounds, said = 0, time.monotonic()
    while not stopped:
        pattern = bytes((rounds + i) & 0xFF for i in range(256)) * (SIZE // 256)
        ctypes.memmove(mine, pattern, SIZE)
        ctypes.memset(mine + SIZE, 0, SIZE)
        if engine.transfer_sync_write(where, mine, place, SIZE):
            print(f"write {rounds} failed", flush=True)
            return 1
        if engine.transfer_sync_read(where, mine + SIZE, place, SIZE):
            print(f"read {rounds} failed", flush=True)
            return 1
        if memory.raw[SIZE:] != pattern:
            print(f"round {rounds} is not what was written", flush=True)
            return 1
        rounds += 1
        if time.monotonic() - said >= 1:
            said = time.monotonic()
            print(f"{rounds} rounds", flush=True)
    print(f"ok, {rounds} rounds", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
