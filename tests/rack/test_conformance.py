"""Soft-RoCE does what the conformance list says, but for what `docs/device.md` names."""

from __future__ import annotations

from pathlib import Path

import conformance
import pytest
from migrrdma_lab.shell import Shell


@pytest.mark.needs("kernel-rdma")
def test_soft_roce_does_what_the_list_says_but_for_named_differences(peer: Shell, tmp_path: Path) -> None:
    conformance.build(tmp_path / "conformance")
    peer.copy(str(tmp_path / "conformance"), ":/root/conformance")
    said = peer.run("/root/conformance", "rxe0", timeout=300).stdout
    different = conformance.difference(conformance.parsed(said), conformance.soft_roce_results())
    assert not different, different
