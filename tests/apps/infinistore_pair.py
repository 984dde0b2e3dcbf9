"""InfiniStore by its Python API: writes what it then reads back and compares, until it is told to stop.

Usage: infinistore_pair.py DEVICE        the store
       infinistore_pair.py DEVICE WHERE  the end that writes and reads
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
import time

sys.path.insert(0, "/apps/infinistore==0.2.35")

import infinistore

BLOCK = 1 << 16
BLOCKS = 16
SIZE = BLOCK * BLOCKS
PORT = 22345
stopped: list[int] = []


def store(device: str) -> int:
    """What ``python3 -m infinistore.server`` does, without its other port and its wish never to be killed."""
    import uvloop

    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    config = infinistore.ServerConfig(
        service_port=PORT, manage_port=PORT + 1, dev_name=device, link_type="Ethernet", prealloc_size=1,
        log_level="warning",
    )  # fmt: skip
    config.verify()
    infinistore.register_server(loop, config)
    print("serves", flush=True)
    loop.run_forever()
    return 0


async def write_and_read(connection: infinistore.InfinityConnection) -> int:
    memory = ctypes.create_string_buffer(2 * SIZE)
    mine = ctypes.addressof(memory)
    # Memory is found by where it begins.
    for place in (mine, mine + SIZE):
        connection.register_mr(place, SIZE)
    rounds, said = 0, time.monotonic()
    while not stopped:
        pattern = bytes((rounds + i) & 0xFF for i in range(256)) * (SIZE // 256)
        ctypes.memmove(mine, pattern, SIZE)
        ctypes.memset(mine + SIZE, 0, SIZE)
        blocks = [(f"{rounds}-{i}", i * BLOCK) for i in range(BLOCKS)]
        await connection.rdma_write_cache_async(blocks, BLOCK, mine)
        await connection.rdma_read_cache_async(blocks, BLOCK, mine + SIZE)
        if memory.raw[SIZE:] != pattern:
            print(f"round {rounds} is not what was written", flush=True)
            return 1
        connection.delete_keys([name for name, _ in blocks])
        rounds += 1
        if time.monotonic() - said >= 1:
            said = time.monotonic()
            print(f"{rounds} rounds", flush=True)
    print(f"ok, {rounds} rounds", flush=True)
    return 0


def main() -> int:
    if len(sys.argv) == 2:
        return store(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    config = infinistore.ClientConfig(
        host_addr=sys.argv[2], service_port=PORT, dev_name=sys.argv[1], link_type="Ethernet",
        connection_type=infinistore.TYPE_RDMA, log_level="warning",
    )  # fmt: skip
    connection = infinistore.InfinityConnection(config)
    connection.connect()
    code = asyncio.run(write_and_read(connection))
    connection.close()
    return code


if __name__ == "__main__":
    sys.exit(main())
