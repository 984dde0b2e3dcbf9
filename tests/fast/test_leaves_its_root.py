"""A process that cannot be called after a restore is refused before it is dumped, by name, and goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest_build import ROOT, compile_c
from migrrdma_lab.errors import RackError
from migrrdma_lab.shell import Shell
from runtime_container import RuntimeContainer

_PROGRAM = "/root/leaves"
_TICK = r"^tick [0-9]+ [0-9.]+$"
_MAY = """
import json, sys
spec = json.load(open(sys.argv[1]))
for which in ("bounding", "effective", "permitted"):
    spec["process"]["capabilities"][which] += ["CAP_SYS_CHROOT", "CAP_SYS_ADMIN"]
json.dump(spec, open(sys.argv[1], "w"))
"""


@pytest.fixture(params=["chroot", "umount"])
def leaver(src: Shell, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RuntimeContainer]:
    compile_c(
        tmp_path / "leaves", ROOT / "tests/workloads/leaves_its_root.c", "-libverbs", "-pthread", "-ldl"
    )
    command = ["/mnt/leaves", request.param]
    container = RuntimeContainer(src, f"by-{request.param}", "10.78.0.173", command, [(_PROGRAM, "/mnt")])
    src.sh(f"rm -rf {_PROGRAM}; mkdir {_PROGRAM}")
    src.copy(str(tmp_path / "leaves"), f":{_PROGRAM}/leaves")
    container.remove()
    container.prepare()
    src.run("python3", "-c", _MAY, f"/root/{container.name}.bundle/config.json")
    yield container.run()
    container.remove()


def test_whoever_cannot_be_called_again_is_refused_and_goes_on(src: Shell, leaver: RuntimeContainer) -> None:
    _until_status_says(src, leaver.name)
    src.run("touch", f"{_PROGRAM}/leave")
    leaver.wait_for_line(_TICK)
    _until_status_says(src, "hides /dev/migrrdma/agent")
    with pytest.raises(RackError, match=re.escape("hides /dev/migrrdma/agent")):
        leaver.checkpoint()
    leaver.wait_for_line(_TICK, after=len(leaver.lines()))


def _until_status_says(node: Shell, text: str) -> None:
    node.sh(
        f"for turn in $(seq 600); do migrrdma status | grep -qF '{text}' && exit; sleep 0.1; done; exit 1"
    )
