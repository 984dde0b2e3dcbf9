"""NIXL by its Python API, over UCX: writes what it then reads back and compares, until it is told to stop.

Usage: nixl_pair.py ADDRESS   the end that lends its memory
       nixl_pair.py ADDRESS WHERE   the end that writes and reads
"""

from __future__ import annotations

import ctypes
import json
import signal
import socket
import sys
import time

sys.path.insert(0, "/apps/nixl-cu12==1.5.1")

from nixl_cu12 import nixl_agent, nixl_agent_config

SIZE = 1 << 20
PORT = 5555
stopped: list[int] = []


def lend(agent: nixl_agent, place: int) -> int:
    """Tell one who asks where the memory is; the agent's own thread serves it."""
    said = json.dumps({"agent": agent.get_agent_metadata().hex(), "place": place})
    with socket.create_server(("", PORT)) as listener:
        print("lends", flush=True)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(said.encode())
    while not stopped:
        time.sleep(0.1)  # its own thread serves; a signal that comes before signal.pause() would be missed
    return 0


def passes(agent: nixl_agent, way: str, mine: int, other: str, theirs: int) -> bool:
    """Have the agent carry one buffer there or back."""
    here, there = ([(place, SIZE, 0)] for place in (mine, theirs))
    handle = agent.initialize_xfer(
        way, agent.get_xfer_descs(here, "DRAM"), agent.get_xfer_descs(there, "DRAM"), other
    )
    state = agent.transfer(handle)
    while state not in ("DONE", "ERR"):
        state = agent.check_xfer_state(handle)
    agent.release_xfer_handle(handle)
    return bool(state == "DONE")


def write_and_read(agent: nixl_agent, where: str, memory: ctypes.Array[ctypes.c_char]) -> int:
    mine = ctypes.addressof(memory)
    with socket.create_connection((where, PORT)) as connection:
        lent = json.loads(connection.makefile().read())
    other = agent.add_remote_agent(bytes.fromhex(lent["agent"]))
    other = other.decode() if isinstance(other, bytes) else other
    rounds, said = 0, time.monotonic()
    while not stopped:
        pattern = bytes((rounds + i) & 0xFF for i in range(256)) * (SIZE // 256)
        ctypes.memmove(mine, pattern, SIZE)
        ctypes.memset(mine + SIZE, 0, SIZE)
        for way, place in (("WRITE", mine), ("READ", mine + SIZE)):
            if not passes(agent, way, place, other, lent["place"]):
                print(f"{way} {rounds} failed", flush=True)
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


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    agent = nixl_agent(sys.argv[1], nixl_agent_config(enable_prog_thread=True, backends=["UCX"]))
    memory = ctypes.create_string_buffer(2 * SIZE)
    registered = agent.register_memory([(ctypes.addressof(memory), 2 * SIZE, 0, "")], "DRAM")
    if len(sys.argv) == 2:
        code = lend(agent, ctypes.addressof(memory))
    else:
        code = write_and_read(agent, sys.argv[2], memory)
    agent.deregister_memory(registered)
    return code


if __name__ == "__main__":
    sys.exit(main())
