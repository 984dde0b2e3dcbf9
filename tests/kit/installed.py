"""An installation of the OCI runtime in a temporary directory, and a stand-in for the low-level runtime."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import migrrdma_runtime
from migrrdma_runtime.base import paths
from migrrdma_runtime.host.install import launcher

_DATA = Path(migrrdma_runtime.__file__).parent / "_data"


class Installation:
    """A launcher, its configuration, one version of the guest library: all of it under one directory."""

    def __init__(self, root: Path, *, with_launcher: bool = True) -> None:
        """Lay it out as ``migrrdma install`` does; without the launcher, every call is the script's."""
        self.root = root
        self.script = root / "prefix" / Path(paths.RUNTIME_SCRIPT).relative_to("/usr/local")
        self.runtime = root / "prefix" / Path(paths.RUNTIME).relative_to("/usr/local")
        self.config = root / "config.toml"
        self.guest_dir = root / "guest"
        self.hooks_dir = _DATA / "hooks"
        self.criu_plugin = _DATA / "criu" / Path(paths.CRIU_PLUGIN).name
        self.run_dir = root / "run"
        self.staged_dir = root / "staged"
        self.version = ""
        self.options: tuple[str | Path, ...] = ()
        """Global options that every call gets."""
        self.script.parent.mkdir(parents=True)
        self.runtime.parent.mkdir()
        launcher.write(self.script, sys.executable)
        if with_launcher:
            shutil.copy(_DATA / "launcher" / self.runtime.name, self.runtime)
        else:
            self.runtime.symlink_to(self.script)
        self.add_guest("0" * 40)
        self.configure()

    def add_guest(self, version: str) -> None:
        """Install the guest library as ``version`` and make it the current one."""
        folder = self.guest_dir / version
        folder.mkdir(parents=True)
        shutil.copy(_DATA / "guest" / paths.GUEST_LIBRARY, folder)
        current = self.guest_dir / "current"
        current.unlink(missing_ok=True)
        current.symlink_to(version)
        self.version = version

    def configure(self, *lines: str, runtime: str | Path = "runc") -> None:
        """Write the configuration; ``lines`` come after the keys that keep the installation together."""
        keys = {"guest_dir": self.guest_dir, "hooks_dir": self.hooks_dir, "run_dir": self.run_dir}
        keys |= {"staged_dir": self.staged_dir}
        keys |= {"runtime": Path(runtime), "criu_plugin": self.criu_plugin}
        text = [f'{key} = "{value}"' for key, value in keys.items()]
        self.config.write_text("\n".join([*text, *lines]) + "\n")

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which the launcher finds this installation's configuration."""
        return {**os.environ, "MIGRRDMA_CONFIG": str(self.config)}

    def run(
        self, *args: str | bytes | Path, cwd: Path | None = None, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Call the runtime and wait for it."""
        return subprocess.run(
            [self.runtime, *self.options, *args],
            cwd=cwd or self.root,
            env=self.environment | (environment or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=60,
        )

    def create(self, bundle: Path, *options: str | Path) -> None:
        """Create the container c1; its streams are not pipes, for whoever reads those would wait for it."""
        subprocess.run(
            [self.runtime, *self.options, "create", "--bundle", bundle, *options, "c1"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=60,
            check=True,
        )


BOTH_WAYS = pytest.mark.parametrize("installation", ["launcher", "python"], indirect=True)
"""For tests of what must hold with the launcher and where it is not built."""


class FakeRuntime:
    """A low-level runtime that records how it was called, then does what its ``script`` says."""

    def __init__(self, path: Path, script: str) -> None:
        self.path = path
        path.write_text(
            "#!/bin/sh\n"
            "cat /proc/$$/cmdline >$0.cmdline; cat /proc/$$/environ >$0.environ\n"
            # In a subshell, because a shell moves its own descriptors to redirect them.
            "(for fd in /proc/$$/fd/*; do readlink $fd | sed s,^,${fd##*/}:,; done) >$0.fds\n" + script
        )
        path.chmod(0o755)

    @property
    def was_called(self) -> bool:
        """Whether it was called since the last look at its arguments."""
        return self._record("cmdline").exists()

    def arguments(self) -> list[bytes]:
        """The arguments of the last call, to the byte, without the interpreter's."""
        data = self._record("cmdline").read_bytes()
        self._record("cmdline").unlink()
        return data.split(b"\0")[2:-1]

    def environment(self) -> list[bytes]:
        """The environment of the last call, in its order."""
        return self._record("environ").read_bytes().split(b"\0")[:-1]

    def descriptors(self) -> dict[int, str]:
        """The descriptors of the last call and where they led."""
        lines = self._record("fds").read_text().splitlines()
        pairs = (line.partition(":") for line in lines)
        return {int(fd): target for fd, _, target in pairs if str(self.path) not in target}

    def _record(self, kind: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{kind}")
