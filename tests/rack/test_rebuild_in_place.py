"""Rebuild in place on a real device, between two machines, again and again: the migration without CRIU.

The integrity workload runs on both machines, each end under its own guest library, and says at the end whether every
byte and every count is right. One end's objects are made anew on its device, the other is its partner and gets a new
queue pair for each of its own, and they take turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
import workload
from migrrdma_lab.plan import PEER
from migrrdma_lab.shell import Shell
from remote_guest import RemoteGuest, put

pytestmark = pytest.mark.needs("kernel-rdma")

_QPS = 8
_DRAIN_MS = 60_000
_RTS = 3


def _connection(qp: Mapping[str, Any], peers: Mapping[int, int], turn: int) -> dict[str, Any]:
    return {
        "context": qp["context"], "vqpn": qp["vqpn"], "dest_pqpn": peers[qp["dest_vqpn"]], "peer": 1,
        "sq_psn": turn, "rq_psn": turn, "dgid": qp["dgid"],
    }  # fmt: skip


def rebuild_in_place(moving: RemoteGuest, partner: RemoteGuest, turn: int) -> None:
    """What the agents of both hosts do in a migration, without dump and restore between PARK and REBUILD."""
    partner.ask("PREPARE")
    for one in (moving, partner):
        one.send("QUIESCE", {"timeout_ms": _DRAIN_MS})
    for one in (moving, partner):
        one.answer()
    moving.ask("PARK")
    (context,) = moving.ask("LIST_CONTEXTS")
    moved = moving.ask("REBUILD", {"context": context["context"], "device": "rxe0"})
    beside = partner.ask("LIST_QPS")
    assert len(moved) == len(beside) == _QPS
    for one, qps, others in ((moving, moved, beside), (partner, beside, moved)):
        numbers = {qp["vqpn"]: qp["next_pqpn"] for qp in others}
        assert all(numbers.values())
        one.ask("CONNECT", None, *(_connection(qp, numbers, turn) for qp in qps))
    keys = [{"vrkey": mr["vrkey"], "prkey": mr["prkey"]} for mr in moving.ask("LIST_MRS")]
    partner.ask("KEYS", {"peer": 1}, *keys)
    partner.ask("RESUME")
    moving.ask("RESUME")


@pytest.fixture(scope="module")
def _on_the_nodes(src: Shell, peer: Shell, tmp_path_factory: pytest.TempPathFactory) -> None:
    workload.build(tmp_path_factory.mktemp("workload")).put(src, peer)
    put(src, peer)


@pytest.fixture
def ends(src: Shell, peer: Shell, _on_the_nodes: None) -> Iterator[tuple[RemoteGuest, RemoteGuest]]:
    common = ("-q", str(_QPS), "-w", "120")
    with ExitStack() as stack:
        server = stack.enter_context(RemoteGuest(peer, workload.command(*common)))
        client = stack.enter_context(RemoteGuest(src, workload.command("-e", *common, PEER.data_address)))
        for one in (client, server):
            one.answer()  # HELLO
        for one in (client, server):
            one.wait_for_line(workload.RATE)
            assert [qp["state"] for qp in one.ask("LIST_QPS")] == [_RTS] * _QPS
        yield client, server


@pytest.mark.parametrize("rounds", [100, pytest.param(1000, marks=pytest.mark.soak)])
def test_nothing_is_lost_when_both_ends_are_rebuilt_in_turn(
    ends: tuple[RemoteGuest, RemoteGuest], rounds: int
) -> None:
    client, server = ends
    numbers = set()
    for turn in range(rounds):
        moving, partner = (client, server) if turn % 2 else (server, client)
        rebuild_in_place(moving, partner, turn)
        numbers.add(client.ask("LIST_QPS")[0]["pqpn"])
    assert len(numbers) > rounds // 2, "the queue pairs are the old ones"
    codes = [one.end() for one in (server, client)]
    for one, code in zip((server, client), codes, strict=True):
        verdict = workload.agreeing(workload.judge(one.lines()), code)
        assert verdict.ok, verdict.text
        assert verdict.operations > rounds
