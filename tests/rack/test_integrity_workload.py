"""The integrity workload between two machines: content with what stock Soft-RoCE does, and able to fail there."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import workload
from migrrdma_lab.containers import Container
from migrrdma_lab.plan import PEER
from migrrdma_lab.shell import Shell

pytestmark = pytest.mark.needs("kernel-rdma")

Register = Callable[[Container], Container]
Start = Callable[..., tuple[Container, Container]]


@pytest.fixture(scope="module", autouse=True)
def _on_the_nodes(dst: Shell, peer: Shell, tmp_path_factory: pytest.TempPathFactory) -> None:
    workload.build(tmp_path_factory.mktemp("workload")).put(dst, peer)


@pytest.fixture
def start(dst: Shell, peer: Shell, containers: Register) -> Start:
    """Start both ends in containers: the server on one node, the client on another."""

    def run(*options: str, release: str = "trixie") -> tuple[Container, Container]:
        server = workload.end(peer, "integrity-server", *options, runtime="runc", release=release)
        client = workload.end(
            dst, "integrity-client", *options, server=PEER.data_address, runtime="runc", release=release
        )
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda end: containers(end).run(), (server, client)))
        return server, client

    return run


def test_soft_roce_is_found_sound_by_polling_until_told_to_stop(start: Start) -> None:
    server, client = start("-w", "60")
    for end in (server, client):
        end.wait_for_line(workload.RATE)
    workload.stop(server)
    for end in (server, client):
        verdict = workload.verdict(end)
        assert verdict.ok, f"{end.name}: {verdict.text}"


def test_soft_roce_is_found_sound_by_events(start: Start) -> None:
    for end in start("-e", "-q", "8", "-s", "4096", "-n", "1000", "-w", "60", release="bookworm"):
        verdict = workload.verdict(end)
        assert verdict.ok, f"{end.name}: {verdict.text}"
        assert verdict.operations >= 1000


_NAMED = {
    "drop-send-completion": r"the completion of operation \d+ \(\w+\) is missing",
    "repeat-send": r"message \d+ .*duplicated",
    "flip-send": r"message \d+ \(operation \d+, SEND\): byte \d+ of \d+ is corrupted",
}


@pytest.mark.parametrize("fault", _NAMED)
def test_a_fault_is_found_out_by_name_at_both_ends(dst: Shell, peer: Shell, fault: str) -> None:
    options = ("-n", "5000", "-w", "30")
    with ThreadPoolExecutor() as pool:
        server = pool.submit(workload.on_node, peer, *options)
        client = pool.submit(workload.on_node, dst, *options, server=PEER.data_address, fault=fault)
        for verdict in (server.result(), client.result()):
            assert not verdict.ok
            assert re.search(_NAMED[fault], verdict.text), verdict.text
