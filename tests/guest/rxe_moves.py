"""Move one end of a real connection on a real device, without CRIU: run on a machine that has ``rxe0``.

Both ends run here, each under its own guest library. The client is rebuilt in place, again and again, on the device
that it has; the server is its partner and gets a new QP each time. What the tools say at the end is the verdict.

    rxe_moves.py LIBRARY MOVES ADDRESS TOOL [OPTION…]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from guest_agent import Agent  # noqa: E402


def launch(agent: Agent, library: str, command: list[str], output: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        **agent.environment,
        "LD_PRELOAD": library,
        "MIGRRDMA_LOG": f"info:{output}.log",
    }
    return subprocess.Popen(command, env=environment, stdout=output.open("wb"), stderr=subprocess.STDOUT)


def one_move(client: Agent, server: Agent) -> dict[str, float]:
    """The lines are the protocol's steps; the times are milliseconds."""
    times: dict[str, float] = {}
    last = time.monotonic()

    def step(name: str) -> None:
        nonlocal last
        times[name] = round((time.monotonic() - last) * 1000, 2)
        last = time.monotonic()

    server.ask("PARTNER")
    step("pre-setup")
    waiting = [(agent, agent.send("QUIESCE", {"timeout_ms": 60000})) for agent in (client, server)]
    for agent, _ in waiting:
        agent.answer()
    step("wait-before-stop")
    client.ask("PARK")
    context = client.ask("LIST_CONTEXTS").records[0]["context"]
    moved = client.ask("REBUILD", {"context": context, "device": "rxe0"}, []).records
    step("rebuild")
    there = server.qps()
    new = {qp["vqpn"]: qp["next_pqpn"] for qp in moved}
    partner = {qp["vqpn"]: qp["next_pqpn"] for qp in there}
    for agent, qps, numbers in ((client, moved, partner), (server, there, new)):
        agent.ask("CONNECT", None, [connection(qp, numbers) for qp in qps if qp["dest_vqpn"]])
    keys = [{"vrkey": m["vrkey"], "prkey": m["prkey"]} for m in client.ask("LIST_MRS").records]
    server.ask("KEYS", {"peer": 1}, keys)
    step("connect")
    server.resume()
    client.resume()
    step("switch")
    return times


def connection(qp: dict[str, Any], peers: dict[int, int]) -> dict[str, Any]:
    return {
        "context": qp["context"],
        "vqpn": qp["vqpn"],
        "dest_pqpn": peers[qp["dest_vqpn"]],
        "sq_psn": 7,
        "rq_psn": 7,
        "peer": 1,
        "dgid": qp["dgid"],
    }


def main(library: str, moves: str, address: str, *tool: str) -> int:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "client").mkdir()
        (directory / "server").mkdir()
        with Agent(directory / "client") as client, Agent(directory / "server") as server:
            outputs = [directory / "server.out", directory / "client.out"]
            processes = [launch(server, library, list(tool), outputs[0])]
            server.accept()
            processes.append(launch(client, library, [*tool, address], outputs[1]))
            client.accept()
            deadline = time.monotonic() + 20
            while not all(any(q["state"] == 3 for q in agent.qps()) for agent in (client,)):
                assert time.monotonic() < deadline, "the connection was not made"
            timeline = [one_move(client, server) for _ in range(int(moves))]
            print(json.dumps(timeline), flush=True)
            codes = [process.wait(120) for process in processes]
            for output in outputs:
                log = output.with_name(output.name + ".log")
                said = log.read_text() if log.exists() else ""
                print(output.name, *output.read_text().splitlines()[-4:], said, sep="\n")
            print("exit codes", codes)
            return max(map(abs, codes))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
