"""The launcher's decisions, and Python's on the very same call."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from migrrdma_runtime import checkpoint, oci, restore
from migrrdma_runtime.shim import bundle, lowlevel, runtime_log

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "launcher"
STRICT = ("-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-g", "-O1")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


class Site:
    """A directory with low-level runtimes, bundles and a configuration, and both deciders at home in it."""

    def __init__(self, root: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.config = root / "config.toml"
        self._runtime("relative/runc")  # which neither may run
        self.runc = self._runtime("bin/runc")
        self.crun = self._runtime("other/crun")
        self._add_bundle("plain", b'{"ociVersion": "1.0.2"}')
        self._add_bundle("rdma", b'{"linux": {"devices": [{"path": "/dev/infiniband/uverbs0"}]}}')
        self._add_bundle("broken", b"{")
        self._add_bundle("away", b'{"annotations": {"org.migrrdma.enable": "true"}}')
        (root / "away" / "inner").mkdir()
        (root / "link").symlink_to("away/inner")  # link/.. is away
        (root / "config.json").write_bytes(b"{}")
        for name, state in (("c1", b'{"id": "c1"}'), ("c2", b'{"labels": ["org.migrrdma.guest=0123"]}')):
            (root / "state" / name).mkdir(parents=True)
            (root / "state" / name / "state.json").write_bytes(state)
        monkeypatch.chdir(root)
        monkeypatch.setenv("MIGRRDMA_CONFIG", str(self.config))
        monkeypatch.setenv("PATH", f"relative:{root}/missing:{root}/bin:{root}/other")
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        self._monkeypatch = monkeypatch
        self._program = program
        self.start()

    def start(self, *command: str) -> None:
        """Start the launcher's decider in the environment as it is now, through ``command``."""
        self._process = subprocess.Popen(
            [*command, self._program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def _runtime(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return path

    def _add_bundle(self, name: str, spec: bytes) -> None:
        (self.root / name).mkdir()
        (self.root / name / "config.json").write_bytes(spec)

    def launcher(self, args: Sequence[bytes]) -> bytes:
        """The path of the low-level runtime that the launcher passes the call to; nothing: it is Python's."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(b"%d\n" % len(args) + b"".join(arg + b"\0" for arg in args))
        self._process.stdin.flush()
        answer = bytearray()
        while byte := self._process.stdout.read(1):
            if byte == b"\0":
                return bytes(answer)
            answer += byte
        raise AssertionError(f"the launcher ended with {self._process.wait(timeout=60)} on {args!r}")

    def python(self, args: Sequence[bytes]) -> bytes:
        """The same, of the Python path: nothing for a call in which it does, says or changes anything."""
        words = [os.fsdecode(arg) for arg in args]
        try:
            with self._monkeypatch.context() as patch:
                patch.setattr(sys, "argv", ["migrrdma-runtime", *words])
                patch.setattr(lowlevel, "become", _become)
                for module, name in (
                    (bundle, "replace"),
                    (checkpoint, "run"),
                    (restore, "run"),
                    (runtime_log, "error"),
                    (runtime_log, "warn"),
                ):
                    patch.setattr(module, name, _interfere)
                oci.main()
        except _BecameError as end:
            return os.fsencode(end.args[0]) if end.args[1] == words else b""
        except _InterferedError:
            return b""

    def close(self) -> None:
        """End the deciding process; a sanitiser's finding is an exit code."""
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0


class _BecameError(Exception):
    """The Python path became the low-level runtime: its path and arguments."""


class _InterferedError(Exception):
    """The Python path does something of its own."""


def _become(runtime: str, args: list[str]) -> None:
    raise _BecameError(runtime, args)


def _interfere(*_args: object) -> None:
    raise _InterferedError
