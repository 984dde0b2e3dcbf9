"""Mount a container's root anew: files have come into its writable layer since its engine mounted it.

The kernel does not say what an overlay shows of a layer that was changed behind its back (overlayfs.rst, *Changes to
underlying filesystems*): a folder that it has looked at before stays what it was.
"""

import os
import subprocess

from migrrdma_runtime.base import kernel_file
from migrrdma_runtime.base.errors import RestoreError
from migrrdma_runtime.shim import bundle

_NO_OPTIONS = ("rw", "seclabel")
"""What the kernel tells of a mount beside the options that made it."""


def mount_anew(folder: str) -> None:
    """Unmount the root of the bundle in ``folder`` and mount the same again; one that is no overlay is left."""
    spec, _ = bundle.read(os.path.join(folder, "config.json"))
    if not isinstance(spec, dict):
        return  # for the low-level runtime to refuse
    root = os.path.realpath(os.path.join(folder, spec["root"]["path"]))
    found = _overlay_at(root)
    if found is None:
        return
    flags, options = found
    # Docker shortens long lists of layers by names that are relative to its folder of them.
    upper = next(one for one in options if one.startswith("upperdir=")).partition("=")[2]
    where = os.path.dirname(os.path.dirname(upper)) if os.path.isabs(upper) else "/"
    words = ["mount", "-t", "overlay", "-o", ",".join([*flags, *options]), "overlay", root]
    try:
        subprocess.run(["umount", root], check=True, capture_output=True, timeout=30)
        subprocess.run(words, check=True, capture_output=True, timeout=30, cwd=where)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        raise RestoreError(
            f"the root of the container, {root}, cannot be mounted anew: {said.decode(errors='replace').strip()}"
        ) from error


def _overlay_at(root: str) -> "tuple[list[str], list[str]] | None":
    """The flags and the layers of the overlay that is mounted there last (proc(5), mountinfo)."""
    found = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.rstrip("\n").partition(" - ")
            words, behind = before.split(" "), after.split(" ")
            if kernel_file.unescaped(words[4]) != root:
                continue
            found = None
            if behind[0] == "overlay":
                options = [
                    one for one in kernel_file.unescaped(behind[2]).split(",") if one not in _NO_OPTIONS
                ]
                flags = [one for one in words[5].split(",") if one not in ("rw", "relatime")]
                found = flags, options
    return found
