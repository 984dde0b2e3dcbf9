"""What a node among namespaces needs over a plain Debian: less of it started, and what this kernel asks for."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..bootstrap import recipe_key
from ..filesystem import build_node_root, node_root, write_files
from ..plan import Places
from . import criu_kernel

_MASKED = (
    # the machine below is not the node's to set up
    "systemd-udevd.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service", "systemd-udev-settle.service", "systemd-modules-load.service",
    "systemd-sysctl.service", "systemd-remount-fs.service", "systemd-pstore.service", "systemd-random-seed.service",
    "modprobe@.service", "sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount", "dev-hugepages.mount", "proc-sys-fs-binfmt_misc.automount", "ldconfig.service",
    # nobody logs in at a console
    "getty@.service", "console-getty.service", "systemd-logind.service", "systemd-update-utmp.service",
)  # fmt: skip

_FILES = {
    "etc/resolv.conf": "",
    # Podman's default, 2048, cannot be had where the machine has the pids controller in version 1's hierarchy.
    "etc/containers/containers.conf.d/rack.conf": "[containers]\npids_limit = 0\n",
    # The kernel's messages and its audit records are the machine's.
    "etc/systemd/journald.conf.d/rack.conf": "[Journal]\nStorage=persistent\nReadKMsg=no\nAudit=no\n",
    "etc/ssh/sshd_config.d/rack.conf": "UseDNS no\nHostKey /etc/ssh/ssh_host_ed25519_key\n",
}


def system_layers(places: Places) -> list[Path]:
    """Where Debian and the layer over it are, or will be; the uppermost first."""
    root = node_root(places)
    patch = criu_kernel.recipe() if root.exists() and criu_kernel.needed(root) else ""
    return [places.images / f"fast-system-{recipe_key(Path(__file__).read_text(), root.name, patch)}", root]


def build_system_layers(places: Places) -> list[Path]:
    """Build what of `system_layers` is not built."""
    root = build_node_root(places)
    layer = system_layers(places)[0]
    if not layer.exists():
        with tempfile.TemporaryDirectory(dir=places.images, prefix=".fast-system-") as work:
            draft = Path(work) / "layer"
            draft.mkdir(0o755)
            write_files(draft, _FILES)
            units = draft / "etc/systemd/system"
            units.mkdir(parents=True, exist_ok=True)
            for unit in _MASKED:
                (units / unit).symlink_to("/dev/null")
            if criu_kernel.needed(root):
                criu_kernel.install(draft, places.build / "logs" / "criu-kernel.log")
            draft.rename(layer)
    return [layer, root]
