"""RDMA tools in containers do with the guest library what they do without: exit codes, output, results."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from guest_build import compile_c
from migrrdma_lab.containers import Container
from migrrdma_lab.plan import container_image
from migrrdma_lab.shell import Shell

pytestmark = pytest.mark.needs("kernel-rdma")

Register = Callable[[Container], Container]

_HERE = Path(__file__).resolve().parents[1] / "transparency"
_SECONDS = 900

_EACH_TOOL = (
    "ibv_devices", "ibv_devinfo -v -d rxe0", "python3 /transparency/with_pyverbs.py rxe0",
    "extended rxe0 1", "ib_send_bw -q 8", "ib_send_bw --use-srq", "ib_send_bw -e", "ib_send_bw -b", "ib_send_lat -c UD",
    "ib_write_bw -c UC", "ib_write_bw --use_old_post_send", "ib_write_lat", "ib_read_bw", "ib_read_lat",
    "ib_atomic_bw -b", "ib_atomic_lat", "ibv_rc_pingpong", "ibv_rc_pingpong -e", "ibv_uc_pingpong", "ibv_ud_pingpong",
    "ibv_srq_pingpong", "ibv_xsrq_pingpong", "rping", "ucmatose", "rdma_server",
)  # fmt: skip
"""Every tool, and every option once. ``make soak`` runs each tool with each option."""

_SOME = (
    "ibv_devinfo -v -d rxe0", "python3 /transparency/with_pyverbs.py rxe0", "ib_send_bw -e", "ib_write_lat", "rping",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _on_the_nodes(dst: Shell, peer: Shell, tmp_path_factory: pytest.TempPathFactory) -> None:
    program = tmp_path_factory.mktemp("transparency") / "extended"
    compile_c(program, _HERE / "extended.c", "-libverbs")
    for node in (dst, peer):
        node.run("rm", "-rf", "/root/transparency")
        node.copy(str(_HERE), ":/root/transparency")
        node.copy(str(program), ":/root/transparency/extended")


def _outcome(
    node: Shell, release: str, runtime: str, cases: tuple[str, ...], register: Register
) -> dict[str, Any]:
    """What every case did, by its name, in a container under this runtime."""
    container = register(
        Container(
            node,
            f"tools-{runtime}",
            ("python3", "/transparency/tools.py", "rxe0", "1", node.node.data_address, *cases),
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


@pytest.mark.parametrize(
    ("release", "cases"),
    [
        pytest.param("trixie", _EACH_TOOL, id="trixie"),
        pytest.param("bookworm", _SOME, id="bookworm"),
        pytest.param("trixie", (), id="everything in trixie", marks=pytest.mark.soak),
        pytest.param("bookworm", (), id="everything in bookworm", marks=pytest.mark.soak),
    ],
)
def test_tools_cannot_tell(
    dst: Shell, peer: Shell, containers: Register, release: str, cases: tuple[str, ...]
) -> None:
    # On two nodes at once: each talks to itself.
    with ThreadPoolExecutor() as pool:
        plain = pool.submit(_outcome, dst, release, "runc", cases, containers)
        ours = pool.submit(_outcome, peer, release, "migrrdma", cases, containers)
        without, with_library = plain.result(), ours.result()
    assert without.keys() == with_library.keys() >= set(cases)
    different = {
        name: (without[name], with_library[name]) for name in without if without[name] != with_library[name]
    }
    assert not different, json.dumps(different, indent=1)
    worked = [name for name, one in without.items() if not any(one["codes"])]
    # Soft-RoCE has neither XRC nor inline data for every tool; most of the rest works.
    assert len(worked) > len(without) * 2 // 3, sorted(set(without) - set(worked))
