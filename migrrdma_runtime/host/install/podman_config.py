"""What Podman is told: a drop-in of ours beside its ``containers.conf``, with the hooks' folder and the runtime's name.

A later file's ``hooks_dir`` takes the place of an earlier one's, and the form that would only add to it is newer than
the Podman of Debian 12. So ours repeats the folders that the files before it name.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import InstallError
from migrrdma_runtime.host.install.payload import PayloadFile
from migrrdma_runtime.host.machine import Host

_PACKAGED = "/usr/share/containers/containers.conf"
_ADMINISTRATORS = "/etc/containers/containers.conf"
_DEFAULT = ["/usr/share/containers/oci/hooks.d"]
"""What Podman reads hooks from where no file says otherwise."""

_TEXT = """\
# Written by `migrrdma install --engine podman`; `migrrdma uninstall` removes it.
[engine]
# The last folder is ours; the others are those of the files before this one.
hooks_dir = {folders}

[engine.runtimes]
{name} = [{path}]
"""


def drop_in(host: Host) -> PayloadFile:
    """Our file, as it belongs beside what the host has now."""
    before = [file for file in _files(host) if host.name(file) != paths.PODMAN_CONFIG and not _is_later(file)]
    folders = [one for one in _folders(before) if one != paths.ENGINE_HOOKS_DIR]
    text = _TEXT.format(
        folders=json.dumps([*folders, paths.ENGINE_HOOKS_DIR]),
        name=paths.RUNTIME_NAME,
        path=json.dumps(paths.RUNTIME),
    )
    return PayloadFile(paths.PODMAN_CONFIG, text.encode(), 0o644)


def masked_by(host: Host) -> str:
    """The file behind ours that takes its folder away again; empty: Podman reads it."""
    folders: list[str] = []
    for file in _files(host):
        had, folders = paths.ENGINE_HOOKS_DIR in folders, _folders([file], folders)
        if had and paths.ENGINE_HOOKS_DIR not in folders:
            return host.name(file)
    return ""


def _files(host: Host) -> list[Path]:
    """What Podman reads, in its order (``containers.conf(5)``)."""
    fixed = [host.path(name) for name in (_PACKAGED, _ADMINISTRATORS)]
    more = sorted(host.path(f"{_ADMINISTRATORS}.d").glob("*.conf"))
    return [file for file in (*fixed, *more) if file.is_file()]


def _is_later(file: Path) -> bool:
    ours = Path(paths.PODMAN_CONFIG)
    return file.parent.name == ours.parent.name and file.name > ours.name


def _folders(files: list[Path], found: list[str] | None = None) -> list[str]:
    """Where hooks are read from after these files, and from ``found`` before."""
    folders = _DEFAULT if found is None else found
    for file in files:
        try:
            value = tomllib.loads(file.read_text(encoding="utf-8")).get("engine", {}).get("hooks_dir")
            if value is None:
                continue
            adds = {"append": True} in value  # in Podman 4.9 and later
            named = [str(one) for one in value if not isinstance(one, dict)]
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise InstallError(f"{file}, which Podman reads, cannot be used: {error}") from error
        folders = [*folders, *named] if adds else named
    return folders
