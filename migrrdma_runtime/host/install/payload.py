"""What an installation consists of: the files that travel inside the package, and those made from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from migrrdma_runtime.agent.peers import agent_config
from migrrdma_runtime.base import build_id, config, paths
from migrrdma_runtime.base.errors import InstallError
from migrrdma_runtime.host.install import launcher

_PACKAGE = Path(__file__).parents[2]
DATA = _PACKAGE / "_data"
COMPLETIONS = {
    "bash": "/usr/local/share/bash-completion/completions/migrrdma",
    "zsh": "/usr/local/share/zsh/site-functions/_migrrdma",
    "fish": "/usr/local/share/fish/vendor_completions.d/migrrdma.fish",
}
"""Where each shell looks for what completes the words after ``migrrdma``."""

_UNITS = {
    paths.AGENT_UNIT: _PACKAGE / "agent" / "migrrdma-agent.service",
    paths.MOVER_UNIT: _PACKAGE / "mover" / "migrrdma-mover.service",
}


@dataclass(frozen=True)
class PayloadFile:
    """One file of the installation."""

    path: str
    content: bytes
    mode: int


@dataclass(frozen=True)
class Payload:
    """Everything ``install`` puts on a host, except for what is made for it: the engines' configurations."""

    configs: tuple[PayloadFile, ...]
    hooks: tuple[PayloadFile, ...]
    guest_library: PayloadFile
    criu_plugin: PayloadFile
    units: tuple[PayloadFile, ...]
    completions: tuple[PayloadFile, ...]
    launchers: tuple[PayloadFile, ...]
    """What Docker runs comes last, after what that runs in turn."""
    engine_hook: tuple[PayloadFile, ...]
    """The hook that edits specs and what describes it, on hosts whose Podman is to have it."""

    @property
    def everything(self) -> tuple[PayloadFile, ...]:
        """What every host gets, in the order in which it is safe to put it there: the launchers use all others."""
        parts = (self.guest_library, self.criu_plugin, *self.units)
        return (*self.configs, *self.hooks, *self.completions, *parts, *self.launchers)

    @property
    def build_id(self) -> str:
        """The folder of the guest library, which ``current`` points at."""
        return PurePosixPath(self.guest_library.path).parent.name


def load(interpreter: str, data: Path = DATA) -> Payload:
    """Collect it; a package without its data was not installed from a wheel."""
    library = data / "guest" / paths.GUEST_LIBRARY
    try:
        image = library.read_bytes()
        plugin = (data / "criu" / PurePosixPath(paths.CRIU_PLUGIN).name).read_bytes()
        hooks = tuple(
            PayloadFile(f"{paths.HOOKS_DIR}/{hook.name}", hook.read_bytes(), 0o755)
            for hook in _files(data / "hooks")
        )
        description = (data / "hooks.d" / PurePosixPath(paths.ENGINE_HOOK).name).read_bytes()
    except OSError as error:
        raise InstallError(
            f"{error.filename} is missing from the package ({error.strerror}); reinstall migrrdma-runtime"
        ) from error
    guest = f"{paths.GUEST_DIR}/{build_id.read(image, str(library))}/{paths.GUEST_LIBRARY}"
    return Payload(
        configs=(
            PayloadFile(paths.CONFIG_FILE, config.DEFAULT_TEXT.encode(), 0o644),
            PayloadFile(paths.AGENT_CONFIG_FILE, agent_config.DEFAULT_TEXT.encode(), 0o644),
        ),
        hooks=hooks,
        guest_library=PayloadFile(guest, image, 0o755),
        criu_plugin=PayloadFile(paths.CRIU_PLUGIN, plugin, 0o755),
        units=tuple(PayloadFile(path, _unit(file, interpreter), 0o644) for path, file in _UNITS.items()),
        completions=tuple(
            PayloadFile(path, _completion(shell).encode(), 0o644) for shell, path in COMPLETIONS.items()
        ),
        launchers=_launchers(interpreter, data / "launcher" / PurePosixPath(paths.RUNTIME).name),
        engine_hook=(
            PayloadFile(paths.INJECT_GUEST, launcher.text(interpreter, "inject_guest").encode(), 0o755),
            PayloadFile(paths.ENGINE_HOOK, description, 0o644),
        ),
    )


def _launchers(interpreter: str, program: Path) -> tuple[PayloadFile, ...]:
    """The launcher and its script, or the script in its place: a package may have been built without it."""
    script = launcher.text(interpreter).encode()
    if not program.exists():
        return (PayloadFile(paths.RUNTIME, script, 0o755),)
    return (
        PayloadFile(paths.RUNTIME_SCRIPT, script, 0o755),
        PayloadFile(paths.RUNTIME, program.read_bytes(), 0o755),
    )


def _unit(file: Path, interpreter: str) -> bytes:
    """A service's unit, run by the interpreter of this very installation."""
    return file.read_text(encoding="utf-8").replace("/usr/bin/python3", interpreter).encode()


def _completion(shell: str) -> str:
    """What the shell reads: it asks ``migrrdma`` itself for the words, as this release of typer has it."""
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="migrrdma", complete_var="_MIGRRDMA_COMPLETE", shell=shell)
    return script.strip() + "\n"


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.iterdir()) if path.is_file())
