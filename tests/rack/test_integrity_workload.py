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
from workload import Verdict

Register = Callable[[Container], Container]

_OPTIONS = ("-n", "1500", "-w", "60")
_OPERATIONS = 1500


@pytest.fixture(scope="module")
def _on_the_nodes(dst: Shell, peer: Shell, tmp_path_factory: pytest.TempPathFactory) -> None:
    workload.build(tmp_path_factory.mktemp("workload")).put(dst, peer)


@pytest.fixture
def between(
    _on_the_nodes: None, dst: Shell, peer: Shell, containers: Register
) -> Callable[..., tuple[Container, Container]]:
    """Start a server on one node, a client with a possible fault on another."""

    def start(*options: str, fault: str = "", release: str = "trixie") -> tuple[Container, Container]:
        def run(container: Container) -> Container:
            return containers(container).run()

        broken = workload.broken(fault) if fault else []
        ends = (
            workload.end(peer, "integrity-server", *options, runtime="runc", release=release),
            workload.end(
                dst, "integrity-client", *options, server=PEER.data_address, runtime="runc", release=release,
                docker_options=broken,
            ),
        )  # fmt: skip
        with ThreadPoolExecutor() as pool:
            server, client = pool.map(run, ends)
        return server, client

    return start


def _verdicts(ends: tuple[Container, Container]) -> tuple[Verdict, Verdict]:
    server, client = (workload.verdict(end) for end in ends)
    return server, client


@pytest.mark.parametrize(
    ("options", "release"), [(("-q", "4"), "trixie"), (("-q", "8", "-s", "4096", "-e"), "bookworm")],
    ids=["polling", "events"],
)  # fmt: skip
def test_soft_roce_is_found_sound(
    between: Callable[..., tuple[Container, Container]], options: tuple[str, ...], release: str
) -> None:
    ends = between(*_OPTIONS, *options, release=release)
    for end, verdict in zip(ends, _verdicts(ends), strict=True):
        assert verdict.ok, f"{end.name}: {verdict.text}"
        assert verdict.operations >= _OPERATIONS
        assert workload.rates(end.lines())


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("drop-send-completion", r"the completion of operation \d+ \(\w+\) is missing"),
        ("repeat-send", r"message \d+ .*duplicated or out of order"),
        ("flip-send", r"message \d+ \(operation \d+, SEND\): byte \d+ of \d+ is corrupted"),
    ],
)
def test_a_fault_is_found_out_by_name(
    between: Callable[..., tuple[Container, Container]], fault: str, named: str
) -> None:
    for verdict in _verdicts(between(*_OPTIONS, fault=fault)):
        assert not verdict.ok
        assert re.search(named, verdict.text), verdict.text
