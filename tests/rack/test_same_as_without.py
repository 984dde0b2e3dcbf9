"""RDMA tools in containers do with the guest library what they do without: exit codes, output, results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from guest_build import compile_c
from migrrdma_lab.containers import Container
from migrrdma_lab.plan import container_image
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]

_TESTS = Path(__file__).resolve().parents[1]
_SECONDS = 900


@pytest.fixture(scope="module", autouse=True)
def _on_the_nodes(dst: Shell, peer: Shell, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tools") / "transparency"
    shutil.copytree(_TESTS / "transparency", folder)
    compile_c(folder / "extended", _TESTS / "guest" / "extended.c", "-libverbs")
    for node in (dst, peer):
        node.run("rm", "-rf", "/root/transparency")
        node.copy(str(folder), ":/root/transparency")


def _outcome(node: Shell, release: str, runtime: str, register: Register) -> dict[str, Any]:
    """What every case did, by its name, in a container under this runtime."""
    container = register(
        Container(
            node,
            f"tools-{runtime}",
            ("python3", "/transparency/tools.py", "rxe0", "1", node.node.data_address),
            (
                "--network=host", "--device=/dev/infiniband/uverbs0", "--device=/dev/infiniband/rdma_cm",
                "--ulimit=memlock=-1", "--volume=/root/transparency:/transparency:ro",
            ),
            container_image(release),
            runtime,
        )
    ).run()  # fmt: skip
    code = int(container.docker("wait", container.name, timeout=_SECONDS).stdout)
    lines = container.docker("logs", container.name).stdout.splitlines()
    assert code == 0, lines[-20:]
    return {one["case"]: one for one in map(json.loads, lines)}


@pytest.mark.parametrize("release", ["trixie", "bookworm"])
def test_tools_cannot_tell(dst: Shell, peer: Shell, containers: Register, release: str) -> None:
    # On two nodes at once: each talks to itself.
    with ThreadPoolExecutor() as pool:
        plain = pool.submit(_outcome, dst, release, "runc", containers)
        ours = pool.submit(_outcome, peer, release, "migrrdma", containers)
        without, with_library = plain.result(), ours.result()
    assert without.keys() == with_library.keys()
    different = {
        name: (without[name], with_library[name]) for name in without if without[name] != with_library[name]
    }
    assert not different, json.dumps(different, indent=1)
    worked = [name for name, one in without.items() if not any(one["codes"])]
    # Soft-RoCE has neither XRC nor inline data for every tool; most of the rest works.
    assert len(worked) > len(without) * 2 // 3, sorted(set(without) - set(worked))
