"""``tests/plugin/criu_stand_in.c``, which plays CRIU for the plugin, from Python."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StandIn:
    """The program that plays CRIU, the plugin, and the sysfs that the plugin was built to believe."""

    program: Path
    plugin: Path
    sysfs: Path
    images: Path

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it; a sanitiser's finding fails the test, whatever else came out."""
        result = subprocess.run(
            [*words], capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=1", **environment},
        )  # fmt: skip
        assert "Sanitizer" not in result.stderr and "runtime error" not in result.stderr, result.stderr
        assert result.returncode in (0, 1), (result.stdout, result.stderr)
        return result

    def dump(
        self, *command: str, stage: str = "dump", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Dump ``command``, which prints "ready" when it holds what it is to hold."""
        # LeakSanitizer cannot look at a process that traces others.
        environment.setdefault("ASAN_OPTIONS", "detect_leaks=0")
        return self.run(str(self.program), str(self.plugin), str(self.images), stage, *command, **environment)

    def restore(self, *what: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Restore as process 1 of a pid namespace, so that the test knows its pid."""
        words = [str(self.program), str(self.plugin), str(self.images), "restore", *map(str, what)]
        environment.setdefault("ASAN_OPTIONS", "detect_leaks=0")
        return self.run("unshare", "--pid", "--fork", *words, **environment)

    def late(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Stop ``command``, which prints "ready", call the hook, and release what is left.

        In a pid namespace of its own, so that the test knows the command's pid: 2.
        """
        words = [str(self.program), str(self.plugin), str(self.images), "late", *command]
        environment.setdefault("ASAN_OPTIONS", "detect_leaks=0")
        return self.run("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *words, **environment)

    def judge(self, directory: Path) -> dict[str, bool]:
        """Whether each image below ``directory`` is taken."""
        result = self.run(str(self.program), str(self.plugin), str(directory), "judge")
        answers = [line.split() for line in result.stdout.splitlines()]
        return {name: answer == "0" for name, _, answer in answers}
