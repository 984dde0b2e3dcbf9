"""The guest library reaches a container wherever mount points can be made, and leaves none in the user's files."""

from __future__ import annotations

import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import Bundle
from installed import Installation

_NOBODY_HERE = 1_000_000
"""The host's user that is root in the container, and owns nothing."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="migrrdma-userns-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def tmp_path(folder: Path) -> Path:
    return folder


@pytest.fixture
def bundle(folder: Path, rootfs: Path) -> Bundle:
    """A container with RDMA, whose root file system is the real root's and its own alone."""
    subprocess.run(["cp", "-a", rootfs, folder / "rootfs"], check=True)
    bundle = Bundle(folder / "bundle", folder / "rootfs")
    bundle.enable_rdma()
    bundle.command(
        "cat /proc/self/maps; echo sees: $(ls /dev/migrrdma/guest); test -e /dev/migrrdma/agent && echo agent: here"
    )
    return bundle


def _in_a_user_namespace(bundle: Bundle) -> None:
    mapping = [{"containerID": 0, "hostID": _NOBODY_HERE, "size": 65536}]
    namespaces = [*bundle.read()["linux"]["namespaces"], {"type": "user"}]
    bundle.change(linux={"namespaces": namespaces, "uidMappings": mapping, "gidMappings": mapping})


def _tree(folder: Path) -> list[str]:
    """Every name in the root file system, with its owner."""
    return sorted(f"{path.lstat().st_uid} {path}" for path in folder.rglob("*"))


def _sees_the_library(host: Installation, bundle: Bundle) -> None:
    result = host.run("run", "--bundle", bundle.path, "c1")
    assert result.returncode == 0, result.stderr.decode()
    output = result.stdout.decode()
    assert f"/{host.version}/libmigrrdma.so" in output
    assert f"sees: {host.version} current" in output
    assert "agent: here" in output


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("user_namespace", [False, True])
def test_the_users_root_file_system_stays_as_it_is(
    host: Installation, bundle: Bundle, user_namespace: bool, readonly: bool
) -> None:
    """Also one whose root may not write a word there, as under Docker's ``userns-remap``."""
    if user_namespace:
        _in_a_user_namespace(bundle)
    bundle.change(root={"path": str(bundle.path.parent / "rootfs"), "readonly": readonly})
    before = _tree(bundle.path.parent / "rootfs")
    _sees_the_library(host, bundle)
    assert _tree(bundle.path.parent / "rootfs") == before


# crun wants to make device nodes there, and cannot.
@pytest.mark.parametrize("lowlevel", ["runc"], indirect=True)
class TestTheHostsDev:
    """As with ``-v /dev:/dev``: the container's root owns nothing of it."""

    @pytest.fixture
    def dev(self, bundle: Bundle) -> Path:
        _in_a_user_namespace(bundle)
        dev = bundle.path.parent / "dev"
        dev.mkdir()
        (dev / "null").touch()
        mounts = [mount for mount in bundle.read()["mounts"] if not mount["destination"].startswith("/dev")]
        mounts.append({"destination": "/dev/", "type": "none", "source": str(dev), "options": ["rbind"]})
        bundle.change(mounts=mounts)
        return dev

    def test_it_gets_the_mount_points_from_us(self, host: Installation, bundle: Bundle, dev: Path) -> None:
        for _ in ("made", "there already"):
            _sees_the_library(host, bundle)
        assert _tree(dev) == [
            f"0 {dev}/{name}" for name in ("migrrdma", "migrrdma/agent", "migrrdma/guest", "null")
        ]

    def test_a_link_in_it_is_not_followed(self, host: Installation, bundle: Bundle, dev: Path) -> None:
        outside = bundle.path.parent / "outside"
        outside.mkdir()
        (dev / "migrrdma").symlink_to(outside)
        assert host.run("run", "--bundle", bundle.path, "c1").returncode != 0
        assert not list(outside.iterdir())


def test_the_agents_folder_can_be_reached_by_whoever_is_root_in_the_container(
    host: Installation, bundle: Bundle
) -> None:
    """At a restore CRIU opens it as that user. What else lies beside it is for nobody but the host's root."""
    host.run_dir.mkdir(mode=0o700)
    _in_a_user_namespace(bundle)
    bundle.command("exit 0")
    assert host.run("run", "--bundle", bundle.path, "c1").returncode == 0
    records = host.run_dir / "containers"
    for folder in (host.run_dir, records):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o711  # to be passed through, not listed
