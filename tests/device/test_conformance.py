"""The software device does what the conformance list says; `tests/rack/test_conformance.py` asks Soft-RoCE."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import conformance
import pytest
from migrrdma_lab.device.build import build_daemon, build_library
from migrrdma_lab.device.daemon import Daemon, DeviceHost, own_node

_SECONDS = 120


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Of a process on a host with one software device, ``rxe0``."""
    folder = tmp_path_factory.mktemp("conformance")
    build_daemon(folder / "deviced")
    build_library(folder / "libibverbs.so.1")
    daemon = Daemon(folder / "deviced", folder / "run")
    daemon.start([DeviceHost("host", folder, gids=("fe80::1", "10.0.0.1"), node=own_node())])
    yield {**os.environ, "LD_LIBRARY_PATH": str(folder), "RDMA_DEVICE_DIR": str(folder)}
    daemon.stop()


@pytest.mark.timeout(2 * _SECONDS)
def test_the_software_device_does_what_the_list_says(environment: dict[str, str], tmp_path: Path) -> None:
    conformance.build(tmp_path / "conformance")
    done = subprocess.run(
        [tmp_path / "conformance", "rxe0"],
        check=False, env=environment, capture_output=True, text=True, timeout=_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    different = conformance.difference(conformance.parsed(done.stdout), conformance.software_results())
    assert not different, different


def test_every_named_difference_is_one() -> None:
    ours = conformance.software_results()
    for case, theirs in conformance.soft_roce_differences().items():
        assert ours[case] != theirs, case
