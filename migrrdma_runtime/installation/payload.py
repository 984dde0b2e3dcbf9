"""What an installation consists of: the files that travel inside the package, and those made from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from migrrdma_runtime import config, launcher, layout
from migrrdma_runtime.errors import InstallError
from migrrdma_runtime.installation import build_id

DATA = Path(__file__).parent.parent / "_data"


@dataclass(frozen=True)
class PayloadFile:
    """One file of the installation."""

    path: str
    content: bytes
    mode: int


@dataclass(frozen=True)
class Payload:
    """Everything ``install`` puts on a host, except for Docker's configuration."""

    config: PayloadFile
    hooks: tuple[PayloadFile, ...]
    guest_library: PayloadFile
    launcher: PayloadFile

    @property
    def build_id(self) -> str:
        """The folder of the guest library, which ``current`` points at."""
        return PurePosixPath(self.guest_library.path).parent.name


def load(interpreter: str, data: Path = DATA) -> Payload:
    """Collect it; a package without its data was not installed from a wheel."""
    library = data / "guest" / layout.GUEST_LIBRARY
    try:
        image = library.read_bytes()
        hooks = tuple(
            PayloadFile(f"{layout.HOOKS_DIR}/{hook.name}", hook.read_bytes(), 0o755)
            for hook in _files(data / "hooks")
        )
    except OSError as error:
        raise InstallError(
            f"{error.filename} is missing from the package ({error.strerror}); reinstall migrrdma-runtime"
        ) from error
    guest = f"{layout.GUEST_DIR}/{build_id.read(image, str(library))}/{layout.GUEST_LIBRARY}"
    return Payload(
        config=PayloadFile(layout.CONFIG_FILE, config.DEFAULT_TEXT.encode(), 0o644),
        hooks=hooks,
        guest_library=PayloadFile(guest, image, 0o755),
        launcher=PayloadFile(layout.RUNTIME, launcher.text(interpreter).encode(), 0o755),
    )


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.iterdir()) if path.is_file())
