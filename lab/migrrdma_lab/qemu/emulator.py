"""The QEMU that runs the machines: Debian 13's, whatever the host is, from a folder of the lab's own.

Debian 12's QEMU 7.2 takes three times as long for a fork with exec and crashes a node's kernel now and then
(docs/lab.md). The host's package sources stay as they are: the programs are unpacked beside the images and run by the
dynamic linker that comes with them, so that they meet the libraries they were built against. No chroot is needed, and
so no device nodes and no bind mounts.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..bootstrap import DEBIAN_SECONDS, LEAN, recipe_key
from ..errors import MachineError
from ..plan import Places
from ..steps import run_logged, step

_RELEASE = "trixie"
_PACKAGES = ("qemu-system-x86", "qemu-utils")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_IMG_SECONDS = 120


@dataclass(frozen=True)
class Emulator:
    """QEMU's programs below ``root``, which is not a root that could be booted or entered."""

    root: Path

    def _by_its_own_linker(self, program: str) -> list[str]:
        return [
            str(self.root / _LIBRARIES / "ld-linux-x86-64.so.2"),
            "--library-path", str(self.root / _LIBRARIES),
            str(self.root / "usr/bin" / program),
        ]  # fmt: skip

    def system(self, *arguments: str) -> list[str]:
        """The command that runs a machine; it finds firmware and modules in its own folder.

        Its tables of translated code are hundreds of megabytes, looked up at every jump after a switch of processes:
        in huge pages that takes a fifth off a ``docker run`` (docs/lab.md).
        """
        return [
            "env", f"QEMU_MODULE_DIR={self.root / _LIBRARIES / 'qemu'}", "GLIBC_TUNABLES=glibc.malloc.hugetlb=1",
            *self._by_its_own_linker("qemu-system-x86_64"),
            "-L", str(self.root / "usr/share/qemu"), "-L", str(self.root / "usr/share/seabios"),
            *arguments,
        ]  # fmt: skip

    def version(self) -> str:
        """What it calls itself; snapshots belong to one version."""
        return subprocess.run(self.system("--version"), capture_output=True, text=True, check=True).stdout

    def img(self, *arguments: str) -> str:
        """What ``qemu-img`` prints; `MachineError` if it fails."""
        result = subprocess.run(
            [*self._by_its_own_linker("qemu-img"), *arguments],
            capture_output=True, text=True, timeout=_IMG_SECONDS, check=False,
        )  # fmt: skip
        if result.returncode:
            raise MachineError(f"qemu-img {arguments[0]}: {result.stderr.strip()}")
        return result.stdout


def emulator(places: Places) -> Emulator:
    """Where the emulator is, or will be once `build_emulator` has run."""
    key = recipe_key(_RELEASE, *_PACKAGES, *LEAN)
    return Emulator(places.images / f"qemu-{_RELEASE}-{key}")


def build_emulator(places: Places) -> Emulator:
    """Unpack (or find) QEMU and the libraries it needs."""
    found = emulator(places)
    if found.root.exists():
        return found
    places.images.mkdir(parents=True, exist_ok=True)
    with (
        step(f"QEMU from {_RELEASE}'s packages"),
        tempfile.TemporaryDirectory(dir=places.images, prefix=".qemu-") as work,
    ):
        unfinished = Path(work) / "root"
        # Unpacked with what they depend on, and not configured: nothing of it is ever the root of a process.
        run_logged(
            ["mmdebstrap", "--mode=root", "--format=directory", "--variant=extract",
             f"--include={','.join(_PACKAGES)}", *LEAN, _RELEASE, unfinished],
            places.build / "logs" / "qemu.log",
            DEBIAN_SECONDS,
        )  # fmt: skip
        unfinished.rename(found.root)
    return found
