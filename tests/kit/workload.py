"""The integrity workload, ``tests/workloads/integrity``: built, put on nodes, run in containers, judged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guest_build import ROOT, SANITIZERS, compile_c
from migrrdma_lab import rdma
from migrrdma_lab.containers import Container
from migrrdma_lab.device.build import build_in_process
from migrrdma_lab.plan import container_image
from migrrdma_lab.shell import Shell

_WORKLOADS = ROOT / "tests" / "workloads"
ON_NODE = "/root/workload"
IN_CONTAINER = "/workload"

RATE = "^ *[0-9]+ s +[0-9]+ ops/s  seq [0-9]+"
"""The line that a running workload prints once a second; bash reads this expression, too."""


@dataclass(frozen=True)
class Built:
    """The program, and the library that falsifies what goes through its device."""

    directory: Path

    @property
    def program(self) -> Path:
        return self.directory / "integrity"

    @property
    def faults(self) -> Path:
        return self.directory / "faults.so"

    @property
    def both_ends(self) -> Path:
        """Both ends in one process, for software devices."""
        return self.directory / "both_ends"

    def put(self, *shells: Shell) -> None:
        """Copy it to these nodes, where the containers of `end` find it."""
        for shell in shells:
            shell.run("rm", "-rf", ON_NODE)
            shell.copy(str(self.directory), f":{ON_NODE}")


def build(directory: Path) -> Built:
    """Compile the program and the faults; neither knows of the guest library."""
    built = Built(directory)
    compile_c(built.program, *sorted((_WORKLOADS / "integrity").glob("*.c")), "-libverbs")
    compile_c(built.faults, "-fPIC", "-shared", _WORKLOADS / "faults.c")
    return built


def build_both_ends(built: Built, variant: str = "plain") -> None:
    """Compile what runs on software devices, and the devices."""
    ends = [p for p in sorted((_WORKLOADS / "integrity").glob("*.c")) if p.name != "main.c"]
    build_in_process(built.directory / "libibverbs.so.1", *SANITIZERS[variant])
    compile_c(
        built.both_ends, *SANITIZERS[variant], _WORKLOADS / "both_ends.c", *ends, "-libverbs", "-pthread"
    )


@dataclass(frozen=True)
class Verdict:
    """The last line that one end printed."""

    ok: bool
    text: str

    @property
    def operations(self) -> int:
        found = re.match(r"integrity: ok, (\d+) operations", self.text)
        return int(found[1]) if found else 0


def judge(lines: Sequence[str]) -> Verdict:
    """The verdict in what an end has printed; none is a failure."""
    last = lines[-1] if lines else "it printed nothing"
    return Verdict(last.startswith("integrity: ok, "), last)


def rates(lines: Sequence[str]) -> list[int]:
    """Operations per second, line by line."""
    return [int(line.split()[2]) for line in lines if re.match(RATE, line)]


def end(
    shell: Shell, name: str, *options: str, server: str | None = None, release: str = "trixie",
    runtime: str = "migrrdma", network: str = "host", docker_options: Sequence[str] = (),
) -> Container:  # fmt: skip
    """One end as a container on a node that `Built.put` was told of; the client if it has a server's address."""
    return Container(
        shell, name,
        # A node has one processor; what polls must not keep Docker from it.
        ["nice", "-n", "19", f"{IN_CONTAINER}/integrity", *options, *([server] if server else [])],
        [*shell.rdma_options, f"--network={network}",
         f"--volume={ON_NODE}:{IN_CONTAINER}:ro", *docker_options],
        container_image(release), runtime,
    )  # fmt: skip


def pair(client_on: Shell, server_on: Shell, *options: str, number: int = 0) -> tuple[Container, Container]:
    """A client that waits for events and its server, which polls, each with an address that can move with it.

    Pairs of different ``number``, 0 to 9, can run at one time.
    """
    for shell in (client_on, server_on):
        rdma.join_data_network(shell)
    client_address, server_address = f"10.78.0.{160 + 2 * number}", f"10.78.0.{161 + 2 * number}"
    suffix = str(number or "")
    server = end(
        server_on, f"server{suffix}", *options, network="data", docker_options=[f"--ip={server_address}"]
    )
    client = end(
        client_on, f"client{suffix}", "-e", *options, server=server_address, network="data",
        docker_options=[f"--ip={client_address}"],
    )  # fmt: skip
    return client, server


def command(*options: str) -> list[str]:
    """One end as a plain process on a node that `Built.put` was told of; nice, for the node has one processor."""
    return ["nice", "-n", "19", f"{ON_NODE}/integrity", *options]


def on_node(
    shell: Shell, *options: str, server: str | None = None, fault: str = "", seconds: int = 60
) -> Verdict:
    """Run one end as a plain process on a node that `Built.put` was told of, with a device that may be broken."""
    words = ["timeout", str(seconds)]
    if fault:
        words += ["env", f"LD_PRELOAD={ON_NODE}/faults.so", f"FAULT={fault}"]
    words += [f"{ON_NODE}/integrity", *options, *([server] if server else [])]
    result = shell.run(*words, timeout=seconds + 20, check=False)
    return agreeing(judge(result.stdout.splitlines()), result.returncode)


def stop(container: Container) -> None:
    """Tell one end to stop; it tells the other. Both give their verdict."""
    container.docker("kill", "--signal=TERM", container.name)


def verdict(container: Container, seconds: float = 60) -> Verdict:
    """Wait for the end of one end, and hear its verdict."""
    code = int(container.docker("wait", container.name, timeout=seconds).stdout)
    return agreeing(judge(container.docker("logs", container.name).stdout.splitlines()), code)


def agreeing(heard: Verdict, exit_code: int) -> Verdict:
    """A verdict whose exit code says otherwise is a failure."""
    if exit_code != (0 if heard.ok else 1):
        return Verdict(False, f"exit code {exit_code} after: {heard.text}")
    return heard
