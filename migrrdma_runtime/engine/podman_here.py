"""Podman's command, and what it says of this host in the form of Docker's API."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from tempfile import TemporaryFile
from typing import Any

from migrrdma_runtime.base.errors import EngineError
from migrrdma_runtime.engine import podman_description
from migrrdma_runtime.engine.engine import IMAGE_DEADLINE_S, Container

_DEADLINE_S = 60
_PIECE = 1 << 20
_NO = 1
"""How ``podman … exists`` exits if there is none."""
_CONTROLLERS = {
    "MemoryLimit": "memory",
    "CpuCfsQuota": "cpu",
    "CPUShares": "cpu",
    "CPUSet": "cpuset",
    "PidsLimit": "pids",
}


class PodmanCommand:
    """``podman`` in $PATH."""

    api = (1, 44)
    """It knows what Docker's API has known since then."""

    def run(self, *words: str, seconds: float = _DEADLINE_S) -> str:
        """What it prints."""
        done = self._ask(words, seconds)
        if done.returncode:
            raise _refusal(done.returncode, done.stderr)
        return done.stdout.decode(errors="replace")

    def exists(self, kind: str, name: str) -> bool:
        """``podman image exists`` and the like."""
        done = self._ask((kind, "exists", "--", name), _DEADLINE_S)
        if done.returncode not in (0, _NO):
            raise _refusal(done.returncode, done.stderr)
        return done.returncode == 0

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        """``podman container inspect`` and the like."""
        said = self.run(kind, "inspect", "--", name)
        try:
            (found,) = json.loads(said)
        except (ValueError, TypeError) as error:
            raise EngineError(f"podman {kind} inspect {name}: no description of a {kind}") from error
        inspected: dict[str, Any] = found
        return inspected

    def info(self) -> dict[str, Any]:
        """``podman info``, as far as Docker says the same."""
        found = json.loads(self.run("info", "--format", "json"))
        controllers = found["host"].get("cgroupControllers") or []
        return {
            "NCPU": found["host"]["cpus"],
            "MemTotal": found["host"]["memTotal"],
            "Plugins": {"Log": found["plugins"]["log"]},
            **{means: controller in controllers for means, controller in _CONTROLLERS.items()},
        }

    def has_runtime(self, name: str) -> bool:
        """By its path, or by the name in ``containers.conf``."""
        if "/" in name:
            return os.access(name, os.X_OK)
        return self._ask(("--runtime", name, "info"), _DEADLINE_S).returncode == 0

    def container_named(self, name: str) -> Container | None:
        """One of exactly this name: Podman also knows ids by their beginning."""
        if not self.exists("container", name):
            return None
        found = container_of(self.inspect("container", name))
        return found if found.name == name else None

    def network(self, name: str) -> dict[str, Any] | None:
        """``podman network inspect``."""
        if not self.exists("network", name):
            return None
        found = podman_description.network(self.inspect("network", name))
        return found if found["Name"] == name else None

    def volume(self, name: str) -> dict[str, Any] | None:
        """``podman volume inspect``."""
        return self.inspect("volume", name) if self.exists("volume", name) else None

    def image(self, reference: str) -> dict[str, Any] | None:
        """``podman image inspect``."""
        return self.inspect("image", reference) if self.exists("image", reference) else None

    def images(self) -> set[str]:
        """The IDs of all images."""
        return set(self.run("images", "--all", "--quiet", "--no-trunc").split())

    def read(self, *words: str) -> Iterator[bytes]:
        """What it writes to its standard output, while it does."""
        with TemporaryFile() as complaints:
            with _started(words, stdout=subprocess.PIPE, stderr=complaints) as process:
                assert process.stdout is not None  # noqa: S101 - as asked for
                try:
                    while piece := process.stdout.read(_PIECE):
                        yield piece
                    code = process.wait(_DEADLINE_S)
                except BaseException:
                    process.kill()
                    raise
            if code:
                complaints.seek(0)
                raise _refusal(code, complaints.read())

    def write(self, chunks: Iterator[bytes], *words: str) -> None:
        """Give it all of this on its standard input."""
        with (
            TemporaryFile() as complaints,
            _started(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=complaints) as process,
        ):
            assert process.stdin is not None  # noqa: S101
            try:
                for piece in chunks:
                    process.stdin.write(piece)
                process.stdin.close()
            except BrokenPipeError:
                pass  # it says below why it reads no more
            except BaseException:
                process.kill()  # before its input ends: it is not to take a part for the whole
                raise
            code = process.wait(IMAGE_DEADLINE_S)
            if code:
                complaints.seek(0)
                raise _refusal(code, complaints.read())

    @staticmethod
    def _ask(words: tuple[str, ...], seconds: float) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                ["podman", *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except FileNotFoundError as error:
            raise EngineError("podman is not installed") from error
        except OSError as error:
            raise EngineError(f"podman cannot be run: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"podman {words[0]} has not ended in {seconds:.0f} s") from error


def container_of(found: dict[str, Any]) -> Container:
    """What Podman says of a container, as far as every engine says it."""
    try:
        state, host = found["State"], found.get("HostConfig") or {}
        return Container(
            id=str(found["Id"]),
            name=str(found["Name"]),
            runtime=str(found["OCIRuntime"]),
            running=bool(state["Running"] or state.get("Paused")),
            paused=bool(state.get("Paused")),
            pid=int(state.get("Pid") or 0),
            auto_remove=bool(host.get("AutoRemove")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError("podman container inspect: no description of a container") from error


def _started(words: tuple[str, ...], **streams: Any) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(["podman", *words], **{"stdin": subprocess.DEVNULL, **streams})
    except OSError as error:
        raise EngineError(f"podman cannot be run: {error.strerror}") from error


def _refusal(code: int, complaints: bytes) -> EngineError:
    lines = complaints.decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), f"exit status {code}")
    return EngineError(f"podman: {last.strip().removeprefix('Error: ')}")
