"""A container's root that is mounted anew is mounted as it was, with every option that its engine gave."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SCRIPT = """
set -eu
mount -t tmpfs none "$1"
cd "$1"
mkdir lower upper work rootfs
echo '{"root": {"path": "rootfs"}}' >config.json
mount -t overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work,$2" overlay rootfs
ls rootfs
echo late >upper/file
grep " $1/rootfs " /proc/self/mountinfo
"$3" -I -c 'import sys; from migrrdma_runtime.shim import root_mount; root_mount.mount_anew(sys.argv[1])' "$1"
grep " $1/rootfs " /proc/self/mountinfo
cat rootfs/file
"""


def test_every_option_stays_and_what_came_behind_its_back_is_seen(tmp_path: Path) -> None:
    options = "index=on,metacopy=on,redirect_dir=on,nodev,noatime"
    command = ["unshare", "-m", "bash", "-c", _SCRIPT, "root", str(tmp_path), options, sys.executable]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    before, after, content = said.splitlines()
    # The number of the mount may be another one.
    assert before.split()[3:] == after.split()[3:]
    for one in ("index=on", "metacopy=on", "redirect_dir=on", "nodev", "noatime"):
        assert one in after
    assert content == "late"
