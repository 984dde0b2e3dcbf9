"""Which device and which GID take the place of another host's."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from sysfs import make_sysfs

from migrrdma_runtime.agent.local.devices import Devices, GidEntry, shortfalls
from migrrdma_runtime.base import gids
from migrrdma_runtime.base.errors import (
    AgentError,
)


def gid(address: str) -> str:
    return gids.from_address(ipaddress.ip_address(address))


def test_the_counterpart_of_a_gid_is_of_its_kind(tmp_path: Path) -> None:
    devices = Devices(make_sysfs(tmp_path, gid("10.78.0.12")))
    there = GidEntry(1, 1, gid("10.78.0.11"), "RoCE v2")
    assert devices.counterpart("rxe0") == "rxe0"
    assert devices.counterpart("mlx5_0") == "rxe0"  # the only one
    assert devices.counterpart_of_gid(there, "rxe0").gid == gid("10.78.0.12")
    with pytest.raises(AgentError, match=r"no GID that could take the place of 10.78.0.11 \(RoCE v1\)"):
        devices.counterpart_of_gid(GidEntry(1, 1, gid("10.78.0.11"), "RoCE v1"), "rxe0")
    with pytest.raises(AgentError, match="no GID that could take the place of 2001:db8::1"):
        devices.counterpart_of_gid(GidEntry(1, 1, gid("2001:db8::1"), "RoCE v2"), "rxe0")


def test_a_device_that_cannot_be_told_is_asked_about(tmp_path: Path) -> None:
    make_sysfs(tmp_path, gid("10.78.0.12"), "rxe0")
    devices = Devices(make_sysfs(tmp_path, gid("10.78.1.12"), "rxe1"))
    with pytest.raises(AgentError, match="take the place of mlx5_0: there are rxe0, rxe1, none of that name"):
        devices.counterpart("mlx5_0")
    with pytest.raises(AgentError, match="there is none at all"):
        Devices(tmp_path / "none").counterpart("rxe0")


def test_a_smaller_device_is_named_by_what_it_lacks() -> None:
    assert shortfalls({"max_qp": 10, "max_mr": 5, "max_srq": 1}, {"max_qp": 9, "max_mr": 5}) == [
        "max_qp is 9, and 10 at the source"
    ]
