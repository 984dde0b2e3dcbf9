"""Bundles for containers of the integration tests: a shell, a few tools, and the libraries they need."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

_TOOLS = ("sh", "cat", "sleep", "ls", "readlink")


def make_rootfs(path: Path) -> None:
    """Fill ``path`` with the tools of this machine and what they are linked with."""
    for name in ("bin", "dev", "proc", "sys", "tmp", "run"):
        (path / name).mkdir(parents=True)
    for tool in _TOOLS:
        program = shutil.which(tool)
        assert program, f"{tool} is missing on this machine"
        shutil.copy(program, path / "bin" / tool)
        listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for library in {word for word in listing.split() if word.startswith("/")}:
            target = path / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)


class Bundle:
    """A bundle whose spec a test may change before it is used."""

    def __init__(self, path: Path, rootfs: Path) -> None:
        self.path = path
        self.spec = path / "config.json"
        path.mkdir()
        subprocess.run(["runc", "spec"], cwd=path, check=True)
        self.change(
            root={"path": str(rootfs), "readonly": False},
            process={"terminal": False, "args": ["/bin/sh", "-c", "cat"]},
            hostname="test",
        )

    def read(self) -> dict[str, Any]:
        """The spec as it is now."""
        spec: dict[str, Any] = json.loads(self.spec.read_text())
        return spec

    def change(self, **members: Any) -> None:
        """Set members of the spec; those of ``process``, ``linux`` and ``annotations`` one by one."""
        spec = self.read()
        for key, value in members.items():
            if key in ("process", "linux", "annotations"):
                spec.setdefault(key, {}).update(value)
            else:
                spec[key] = value
        self.spec.write_text(json.dumps(spec))

    def command(self, script: str) -> None:
        """Have the container run a shell script."""
        self.change(process={"args": ["/bin/sh", "-c", script]})

    def add_environment(self, *entries: str) -> None:
        """Add to the container's environment."""
        self.change(process={"env": [*self.read()["process"]["env"], *entries]})

    def enable_rdma(self) -> None:
        """Have the container treated as one that holds an RDMA device."""
        self.change(annotations={"org.migrrdma.enable": "true"})
