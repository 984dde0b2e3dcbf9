"""Making Debian file systems with mmdebstrap: what every image of the lab begins with."""

from __future__ import annotations

import hashlib

DEBIAN_SECONDS = 900
"""How long one mmdebstrap may take; nearly all of it is the download."""

MMDEBSTRAP = ("unshare", "--mount", "--propagation=private", "mmdebstrap", "--mode=root")
"""It mounts this machine's /proc and /sys; one that is killed leaves them mounted, and whoever then removes its folder
reaches into them. In a mount namespace of its own they end with it."""

LEAN = (
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
)
"""Documentation and translations are most of a minimal Debian's files, and every one costs time in emulation."""


def recipe_key(*parts: str) -> str:
    """Twelve hex digits that name what a recipe makes."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
