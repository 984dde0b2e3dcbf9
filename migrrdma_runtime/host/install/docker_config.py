"""Our entry in Docker's ``daemon.json``: planned, shown as a diff, checked by dockerd, then written."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from migrrdma_runtime.base import files, paths
from migrrdma_runtime.base.errors import DockerError, InstallError
from migrrdma_runtime.host.install import daemon_json
from migrrdma_runtime.host.install.record import DockerEdit
from migrrdma_runtime.host.install.step import Step
from migrrdma_runtime.host.machine import Host, Runner

_P = ParamSpec("_P")
_T = TypeVar("_T")

DEFAULT = "/etc/docker/daemon.json"
NAME = paths.RUNTIME_NAME
"""What our runtime is called in ``docker run --runtime=``."""


@dataclass(frozen=True)
class DockerConfig:
    """One ``daemon.json`` of one host."""

    host: Host
    run: Runner
    name: str = DEFAULT

    @property
    def path(self) -> Path:
        """The file itself, where a symbolic link points."""
        return self.host.path(self.name).resolve()

    def plan_add(self, ours: DockerEdit | None) -> tuple[Step, DockerEdit]:
        """The step that registers the runtime, and what to remember of it."""
        before = self._read()
        if ours is not None and ours.config != self.name:
            raise InstallError(
                f"the runtime is registered in {ours.config}, not in {self.name}; uninstall it there first"
            )
        text = before or ""
        present = self._ask(daemon_json.runtime_path, text, NAME)
        if present == paths.RUNTIME:
            known = ours or DockerEdit(self.name, paths.RUNTIME, "", created=False)
            return Step(self.name), replace(known, path=paths.RUNTIME)
        if present is not None:
            if ours is None or present != ours.path:
                raise InstallError(
                    f'{self.name} already has a runtime called "{NAME}" ({present or "without a path"}) '
                    "that is not ours; rename or remove it first"
                )
            text = self._ask(daemon_json.remove, text, NAME, ours.inserted)
        edit = self._ask(daemon_json.add, text, NAME, paths.RUNTIME)
        # A second attempt at a file that the first one created must not forget that it did.
        created = before is None or (present is not None and ours is not None and ours.created)
        step = Step(
            self.name,
            partial(self._write, edit.text),
            f"with the runtime {NAME}",
            self._diff(before or "", edit.text),
        )
        return step, DockerEdit(self.name, paths.RUNTIME, edit.inserted, created)

    def plan_remove(self, ours: DockerEdit | None) -> Step:
        """The step that takes the runtime out again, and the file with it when it was ours."""
        before = self._read()
        present = self._ask(daemon_json.runtime_path, before or "", NAME)
        if before is None or present is None:
            return Step(self.name, note="nothing of ours is in it")
        if present != (ours.path if ours else paths.RUNTIME):
            return Step(self.name, note=f'its runtime "{NAME}" is not ours ({present})')
        if self._ask(daemon_json.default_runtime, before) == NAME:
            raise InstallError(
                f'{self.name} makes "{NAME}" the default-runtime, without which dockerd would not start; '
                "choose another default first"
            )
        after = self._ask(daemon_json.remove, before, NAME, ours.inserted if ours else "")
        diff = self._diff(before, after)
        if ours is not None and ours.created and not daemon_json.parse(after):
            return Step(self.name, self._unlink, "removal: it was ours alone", diff)
        return Step(self.name, partial(self._write, after), f"without the runtime {NAME}", diff)

    def _read(self) -> str | None:
        try:
            return self.path.read_bytes().decode("utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as error:
            raise DockerError(f"{self.name}: byte {error.start} is not UTF-8") from error
        except OSError as error:
            raise DockerError(f"{self.name}: {error.strerror}") from error

    def _ask(self, question: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call into the text edit, which does not know what its text is called."""
        try:
            return question(*args, **kwargs)
        except DockerError as error:
            raise DockerError(f"{self.name}: {error}") from error

    def _write(self, text: str) -> None:
        files.replace(self.path, text.encode(), approve=self._validate)

    def _unlink(self) -> None:
        self.path.unlink()
        files.sync_directory(self.path.parent)

    def _validate(self, draft: Path) -> None:
        """Have dockerd read the new file before it counts. Before release 23 it has no way to be asked."""
        done = self.run(["dockerd", "--validate", "--config-file", str(draft)])
        if done is None or done.status == 0 or "unknown flag" in done.stderr:
            return
        complaint = done.complaint.replace(str(draft), self.name)
        raise DockerError(f"dockerd does not accept the edited {self.name}, nothing was changed: {complaint}")

    def _diff(self, before: str, after: str) -> str:
        lines = difflib.unified_diff(
            before.splitlines(keepends=True), after.splitlines(keepends=True), self.name, f"{self.name} (new)"
        )
        return "".join(
            line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines
        )
