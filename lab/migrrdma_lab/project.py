"""The working tree's build, and how it gets onto a node: as any user's would, from its wheel."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from .plan import NODES, REPOSITORY, Node, Places
from .shell import Shell
from .steps import run_logged

_WHEEL_SOURCES = (
    "migrrdma_runtime",
    "hooks",
    "guest",
    "criu_plugin",
    "launcher",
    "meson.build",
    "pyproject.toml",
)

_INSTALL = """
rm -rf /opt/migrrdma/lib/python3*/site-packages/migrrdma_runtime* /opt/migrrdma/bin/migrrdma
/opt/migrrdma/bin/python -m installer --compile-bytecode 0 "$1"
ln -sf /opt/migrrdma/bin/migrrdma /usr/local/bin/migrrdma
migrrdma install
install -d -m 700 /etc/migrrdma/tls
tar -C /etc/migrrdma/tls -xf "$3"
systemctl daemon-reload
systemctl enable migrrdma-agent migrrdma-mover
systemctl restart --no-block migrrdma-agent migrrdma-mover  # in emulation it takes its time
systemctl reload docker
echo "$2" >/etc/rack-project
"""


def tree_state() -> str:
    """A digest of every source file that goes into the wheel."""
    listing = subprocess.run(
        ["git", "-C", str(REPOSITORY), "ls-files", "-co", "--exclude-standard", "-z", "--", *_WHEEL_SOURCES],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    digest = hashlib.sha256()
    for name in sorted(filter(None, listing.split(b"\0"))):
        path = REPOSITORY / name.decode()
        if path.is_file():
            digest.update(name + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def wheel(places: Places, state: str) -> Path:
    """Build (or find) the wheel of the working tree in ``state``."""
    directory = places.wheels / state
    found = list(directory.glob("*.whl"))
    if found:
        return found[0]
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".") as work:
        run_logged(
            [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", work, REPOSITORY],
            places.build / "logs" / "wheel.log",
            300,
        )
        built = next(Path(work).glob("*.whl"))
        directory.mkdir(exist_ok=True)
        return built.rename(directory / built.name)


def installed_state(shell: Shell) -> str:
    """The state of the tree whose build the node runs; empty if none."""
    return shell.run("cat", "/etc/rack-project", check=False).stdout.strip()


def prepare(places: Places) -> Path:
    """Build (or find) what every node gets: the working tree's wheel, and a certificate for each agent."""
    for node in NODES:
        _make_certificate(places, node)
    return wheel(places, tree_state())


def _certificate(places: Places, node: Node) -> Path:
    """An archive of the key and certificates of a node's agent."""
    return places.disks / f"{node.name}.tls.tar"


def _make_certificate(places: Places, node: Node) -> None:
    archive = _certificate(places, node)
    if archive.exists():
        return
    authority = places.disks / "ca"
    if not authority.exists():
        with tempfile.TemporaryDirectory(dir=places.disks, prefix=".") as work:
            _migrrdma(places, "agent", "ca", "init", "--ca", Path(work) / "ca")
            (Path(work) / "ca").rename(authority)
    with tempfile.TemporaryDirectory(dir=places.disks, prefix=".") as work:
        _migrrdma(
            places, "agent", "ca", "issue", node.name, "--ca", authority, "--out", work,
            "--address", node.data_address,
        )  # fmt: skip
        unfinished = Path(work) / "tls.tar"
        with tarfile.open(unfinished, "w") as tar:
            for name in ("agent.crt", "agent.key", "ca.crt"):
                tar.add(Path(work) / name, name)
        unfinished.rename(archive)


def _migrrdma(places: Places, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", "migrrdma_runtime", *arguments]
    run_logged(command, places.build / "logs" / "certificates.log", 60)


def put_certificate(places: Places, node: Node, root: Path) -> None:
    """Give the node whose file system is at ``root`` the key and certificates of its agent."""
    folder = root / "etc/migrrdma/tls"
    folder.mkdir(mode=0o700, parents=True)
    with tarfile.open(_certificate(places, node)) as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None  # noqa: S101 - `_make_certificate` put files there
            with open(folder / member.name, "wb", opener=_private) as file:
                file.write(content.read())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def install(shell: Shell, built: Path) -> None:
    """Put a wheel on a node, register the runtime in its Docker, and start its agent."""
    _make_certificate(shell.places, shell.node)
    with tempfile.TemporaryDirectory() as work:
        parcel = Path(work) / "project"
        parcel.mkdir()
        shutil.copy(built, parcel)
        shutil.copy(_certificate(shell.places, shell.node), parcel / "tls.tar")
        shell.run("rm", "-rf", "/root/project")
        shell.copy(str(parcel), ":/root/project")
    shell.run(
        "sh", "-euc", _INSTALL, "install", f"/root/project/{built.name}", built.parent.name, "/root/project/tls.tar",
        timeout=180,
    )  # fmt: skip
