"""Containers on this very machine, by the real runc and crun. Needs root, and fails without either."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import Bundle, make_rootfs
from installed import Installation


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert os.geteuid() == 0, "these tests create containers, which takes root"
    path = tmp_path_factory.mktemp("image") / "rootfs"
    make_rootfs(path)
    return path


@pytest.fixture
def bundle(tmp_path: Path, rootfs: Path) -> Bundle:
    return Bundle(tmp_path / "bundle", rootfs)


@pytest.fixture(params=["runc", "crun"])
def lowlevel(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The real low-level runtime."""
    path = shutil.which(str(request.param), path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert path, f"{request.param} is not installed"
    if request.param == "crun" and Path("/sys/fs/cgroup/unified").exists():
        return _with_unified_cgroups(tmp_path / "crun", path)
    return path


def _with_unified_cgroups(wrapper: Path, crun: str) -> str:
    """Let crun, which refuses a hybrid cgroup hierarchy, see none but cgroup2; without any limits."""
    mount = "umount --recursive --lazy /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup"
    command = f"{mount} && exec {crun} --cgroup-manager disabled"
    wrapper.write_text(f"""#!/bin/sh\nexec unshare --mount sh -c '{command} "$@"' {crun} "$@"\n""")
    wrapper.chmod(0o755)
    return str(wrapper)


@pytest.fixture
def host(installation: Installation, lowlevel: str) -> Iterator[Installation]:
    """An installation on top of a real runtime, whose containers are gone afterwards."""
    installation.configure(runtime=lowlevel)
    installation.options = ("--root", installation.root / "containers")
    yield installation
    for container in (installation.root / "containers").glob("*/"):
        subprocess.run([lowlevel, *installation.options, "delete", "--force", container.name], check=False)
