"""A container of the OCI runtime's own, on a node and without an engine: a bundle, and the four commands that move it.

It has what a container of Docker's on the data network has: the image's file system (read-only), the node's RDMA
device by its CDI specification, an interface and an address of its own, and a pipe for its output.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from migrrdma_lab.containers import carry, wait_for_line
from migrrdma_lab.errors import RackError
from migrrdma_lab.plan import container_image
from migrrdma_lab.shell import Shell

_IMAGES = "/root/images-of-runtime-containers"
_CDI = "/etc/cdi/rack.json"

_MAKE_NETWORK = """
ip netns add "$1"
ip link add own link rd0 netns "$1" type macvlan mode bridge
ip -n "$1" link set lo up
ip -n "$1" addr add "$2/24" dev own
ip -n "$1" link set own up
"""

# Each has a root of its own, as from an engine: runc prepares a restore by mounts in it on the node, and takes what is
# mounted there away.
_MAKE_ROOT = """
mkdir -p "$2"
mount --bind --make-private "$1" "$2"
"""

# What the container writes reaches a pipe, which CRIU leaves to the runtime; the file behind it is the node's.
_WITH_OUTPUT = 'log=$1; shift; exec "$@" </dev/null > >(exec cat >>"$log" 2>/dev/null) 2>&1'


@dataclass(frozen=True)
class RuntimeContainer:
    """The container ``name`` on the node behind ``shell``."""

    shell: Shell
    name: str
    address: str
    command: Sequence[str]
    binds: Sequence[tuple[str, str]] = ()
    """Folders of the node, and at which of the image's the container sees them, read-only."""
    writable: Sequence[str] = ()
    """Folders of the image in whose place it has some of its own, in memory."""

    @property
    def _bundle(self) -> str:
        return f"/root/{self.name}.bundle"

    @property
    def _root(self) -> str:
        return f"/root/{self.name}.root"

    @property
    def _output(self) -> str:
        # Not on the node's disk, which tests fill: cat would end at the first line that needs another page, and the
        # container at the next line that it writes.
        return f"/run/{self.name}.output"

    @property
    def _log(self) -> str:
        return f"/root/{self.name}.log"

    def on(self, shell: Shell) -> RuntimeContainer:
        """The same container on another node."""
        return replace(self, shell=shell)

    def prepare(self) -> RuntimeContainer:
        """Make the bundle; network and root come with `run` and `restore`: an address can be in one place."""
        self.shell.sh(
            f"rm -rf {self._bundle} {self._output}; mkdir {self._bundle}; cd {self._bundle}; runc spec"
        )
        spec = json.loads(self.shell.run("cat", f"{self._bundle}/config.json").stdout)
        self._edit(spec)
        self.shell.run("tee", f"{self._bundle}/config.json", stdin=json.dumps(spec).encode())
        return self

    def _edit(self, spec: dict[str, Any]) -> None:
        spec["root"] = {"path": self._root, "readonly": True}
        spec["process"] |= {"terminal": False, "args": list(self.command)}
        del spec["process"]["rlimits"]
        spec["linux"]["cgroupsPath"] = f"/runtime-containers/{self.name}"
        for namespace in spec["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = f"/run/netns/{self.name}"
        mounts = [(source, target, ["rbind", "ro"]) for source, target in self.binds]
        (device,) = json.loads(self.shell.run("cat", _CDI).stdout)["devices"]
        edits = device["containerEdits"]
        mounts += [(m["hostPath"], m["containerPath"], m["options"]) for m in edits["mounts"]]
        for source, target, options in mounts:
            spec["mounts"].append(
                {"destination": target, "source": source, "type": "bind", "options": options}
            )
        for target in self.writable:
            spec["mounts"].append(
                {"destination": target, "source": "tmpfs", "type": "tmpfs", "options": ["nosuid"]}
            )
        for node in edits["deviceNodes"]:
            found = self.shell.run("stat", "-c", "%Hr %Lr", node["path"]).stdout.split()
            number = {"type": "c", "major": int(found[0]), "minor": int(found[1])}
            spec["linux"].setdefault("devices", []).append({"path": node["path"], "fileMode": 0o666} | number)
            spec["linux"]["resources"]["devices"].append({"allow": True, "access": "rw"} | number)

    def _make_network_and_root(self) -> None:
        self.shell.run("sh", "-euc", _MAKE_NETWORK, "network", self.name, self.address)
        layer = self.shell.run(
            "docker", "image", "inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", container_image("trixie")
        )
        self.shell.run("sh", "-euc", _MAKE_ROOT, "root", layer.stdout.strip(), self._root)

    def _runtime(self, *words: str, output: bool = False) -> None:
        command = ["migrrdma-runtime", "--log", self._log, *words]
        if output:
            command = ["bash", "-c", _WITH_OUTPUT, "container", self._output, *command]
        result = self.shell.run(*command, check=False)
        if result.returncode:
            said = self.shell.sh(f"tail -n 3 {self._log} {self._output}", check=False).stdout
            raise RackError(f"{self.shell.node.name}: `{' '.join(words)}`: {result.stderr.strip()} {said}")

    def run(self) -> RuntimeContainer:
        """Start it."""
        self._make_network_and_root()
        self._runtime("run", "--detach", "--bundle", self._bundle, self.name, output=True)
        return self

    def move(self, destination: Shell) -> RuntimeContainer:
        """Dump it here, carry the images, restore it on a node where `prepare` has been called."""
        self.checkpoint()
        self.remove()
        return self.restore(destination)

    def checkpoint(self) -> None:
        """Dump it here."""
        self.shell.run("rm", "-rf", f"{_IMAGES}/{self.name}")
        self.shell.run("mkdir", "-p", _IMAGES)
        self._runtime("checkpoint", "--image-path", f"{_IMAGES}/{self.name}", self.name)

    def restore(self, destination: Shell) -> RuntimeContainer:
        """Carry its images to a node where `prepare` has been called, and restore it there."""
        return self.carry_images(destination).restore_here()

    def carry_images(self, destination: Shell) -> RuntimeContainer:
        """Copy its images to another node; the container as it may be restored there."""
        destination.run("rm", "-rf", self.images)
        carry(_IMAGES, self.name, self.shell, destination)
        return self.on(destination)

    def restore_here(self) -> RuntimeContainer:
        """Restore it from the images that are here."""
        self._make_network_and_root()
        self._runtime(
            "restore",
            "--detach",
            "--bundle",
            self._bundle,
            "--image-path",
            self.images,
            self.name,
            output=True,
        )
        return self

    @property
    def images(self) -> str:
        """The checkpoint's folder."""
        return f"{_IMAGES}/{self.name}"

    def restore_log(self) -> str:
        """What CRIU has logged of the last restore here."""
        return self.shell.run("cat", f"{_IMAGES}/{self.name}/restore.log").stdout

    def lines(self) -> list[str]:
        """What it has printed on this node."""
        return self.shell.run("cat", self._output).stdout.splitlines()

    def wait_for_line(self, pattern: str, seconds: float = 60, *, after: int = 0) -> None:
        """Wait until a line that matches ``pattern`` (a regular expression) follows the first ``after``."""
        wait_for_line(self, ("tail", "-n", "+1", "-f", self._output), pattern, seconds, after)

    def remove(self) -> None:
        """Kill it and remove what is left of it, but for its bundle and its output; none is no error."""
        deleted = self.shell.run("migrrdma-runtime", "delete", "--force", self.name, check=False)
        # The kernel ends a network some time later, and until then answers for its address.
        self.shell.run("ip", "-n", self.name, "link", "delete", "own", check=False)
        self.shell.run("ip", "netns", "delete", self.name, check=False)
        self.shell.run("umount", "--lazy", "--quiet", self._root, check=False)
        if deleted.returncode:
            left = self.shell.sh(
                f"find /run/runc/{self.name} -xdev; grep {self.name} /proc/mounts", check=False
            )
            raise RackError(f"{self.shell.node.name}: not removed: {deleted.stderr.strip()}; {left.stdout}")


Register = Callable[[RuntimeContainer], RuntimeContainer]
