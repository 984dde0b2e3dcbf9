"""The OCI runtime on a host of the cluster: the real one, over a low-level runtime that does what a test says."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from cluster import Host
from guest_process import PATIENT_S
from installed import FakeRuntime, Installation

_GUEST = "org.migrrdma.guest"

_DISPATCH = """
for word; do case $word in checkpoint|restore|resume|pause|delete) command=$word; break;; esac; done
echo $command >>$0.calls
[ ! -e $0.$command ] || . $0.$command
exit 0
"""


@dataclass
class Ended:
    """A call of the runtime that has ended."""

    code: int
    log: str


class RuntimeOnHost:
    """An installation that talks to the host's agent; its container is called ``c1``."""

    def __init__(self, host: Host, folder: Path) -> None:
        folder.mkdir()
        self._installation = Installation(folder, with_launcher=False)
        self._installation.run_dir = host.config.run_dir
        self._low_level = FakeRuntime(folder / "runc", _DISPATCH)
        self._installation.configure(runtime=self._low_level.path)
        self.images = folder / "images"
        self._log = folder / "log"
        state = folder / "root" / "c1" / "state.json"
        state.parent.mkdir(parents=True)
        state.write_text(json.dumps({"config": {"labels": [f"{_GUEST}={'0' * 40}"]}}))
        self.bundle = folder / "bundle"
        self.bundle.mkdir()
        spec = {"ociVersion": "1.0.2", "linux": {"devices": [{"path": "/dev/infiniband/uverbs0"}]}}
        (self.bundle / "config.json").write_text(json.dumps(spec))
        self._folder = folder
        self._agent_config = folder / "agent.toml"
        self._agent_config.write_text(f'state_dir = "{host.config.state_dir}"\n')
        self.state = state

    def does(self, command: str, *lines: str) -> None:
        """What the low-level runtime does when it is called so, in the shell's words."""
        self._low_level.path.with_name(f"runc.{command}").write_text("\n".join(lines) + "\n")

    @property
    def calls(self) -> list[str]:
        """What the low-level runtime was called for, in order."""
        record = self._low_level.path.with_name("runc.calls")
        return record.read_text().split() if record.exists() else []

    def meets(self, name: str) -> str:
        """A line for :meth:`does`: be seen by :meth:`reached`, and wait until the test says :meth:`go_on`."""
        return f"touch {self._folder}/{name}; while [ ! -e {self._folder}/{name}.on ]; do sleep 0.05; done"

    async def reached(self, name: str) -> None:
        async with asyncio.timeout(PATIENT_S):
            while not (self._folder / name).exists():
                await asyncio.sleep(0.02)  # another process makes it

    def go_on(self, name: str) -> None:
        (self._folder / f"{name}.on").touch()

    async def run(self, *arguments: str | Path) -> Ended:
        """Call the runtime, as containerd does."""
        installation = self._installation
        process = await asyncio.create_subprocess_exec(
            installation.runtime,
            *("--root", self._folder / "root", "--log", self._log, "--log-format", "json"),
            *arguments,
            "c1",
            env={**installation.environment, "MIGRRDMA_AGENT_CONFIG": str(self._agent_config)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        code = await asyncio.wait_for(process.wait(), 3 * PATIENT_S)
        return Ended(code, self._log.read_text() if self._log.exists() else "")

    async def checkpoint(self) -> Ended:
        return await self.run("checkpoint", "--image-path", self.images)

    async def create(self) -> Ended:
        return await self.run("create", "--bundle", self.bundle)

    async def restore(self) -> Ended:
        return await self.run("restore", "--detach", "--image-path", self.images, "--bundle", self.bundle)
