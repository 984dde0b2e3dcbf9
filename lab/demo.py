"""The demo: an RDMA application moves from one machine of the rack to another while you watch.

The application is the integrity workload: SEND, WRITE, WRITE_WITH_IMM, READ and fetch-and-add in both directions at
once over several queue pairs, every byte and every completion accounted for at both ends. It knows nothing of
migration. It is started by ``docker run --runtime=migrrdma``, and one command moves it, ``migrrdma migrate``.
``--fast``: on the fast rack, whose device is a software one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import workload
from migrrdma_lab import rdma
from migrrdma_lab.choice import choose_rack
from migrrdma_lab.containers import Container
from migrrdma_lab.errors import RackError
from migrrdma_lab.plan import DST, PEER, SRC
from migrrdma_lab.shell import Shell
from rich.console import Console

_STYLES = {"src": "cyan", "dst": "green", "peer": "magenta"}

console = Console(highlight=False, width=110)
_began = time.monotonic()


class Watch:
    """Prints what a container prints, as it comes, beside what everybody else does."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._lines = 0
        self._news = threading.Condition()
        self._follower = subprocess.Popen(
            container.shell.command(["docker", "logs", "-f", "--tail", "0", container.name]),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._print, daemon=True)
        self._thread.start()

    def _print(self) -> None:
        name = self._container.shell.node.name
        assert self._follower.stdout is not None  # noqa: S101 - it is a pipe
        for line in self._follower.stdout:
            at = time.monotonic() - _began
            console.print(
                f"  {at:6.1f} s  [{_STYLES[name]}]{name:<5}[/] [dim]{line.strip()}[/]", soft_wrap=True
            )
            with self._news:
                self._lines += 1
                self._news.notify_all()

    def wait(self, lines: int, seconds: float = 60) -> None:
        """Wait for so many lines more."""
        with self._news:
            until = self._lines + lines
            if not self._news.wait_for(lambda: self._lines >= until, seconds):
                raise RackError(f"{self._container.name} printed nothing for {seconds:.0f} s")

    def end(self) -> None:
        """Print no more."""
        self._follower.terminate()
        self._follower.wait()
        self._thread.join()


@contextmanager
def _command(node: Shell, command: str) -> Iterator[None]:
    """Show a command, and how long it took."""
    name = node.node.name
    console.print(f"[bold {_STYLES[name]}]{name}#[/] [bold]{command}[/]")
    start = time.monotonic()
    yield
    console.print(f"  {time.monotonic() - _began:6.1f} s  {'':5} took {time.monotonic() - start:.1f} s")


def _prepare(src: Shell, dst: Shell, peer: Shell) -> tuple[Container, Container]:
    with tempfile.TemporaryDirectory() as directory:
        workload.build(Path(directory)).put(src, dst, peer)
    client, server = workload.pair(src, peer)
    rdma.join_data_network(dst)
    for one in (client, client.on(dst), server):
        one.remove()
    return client, server


def _move(client: Container, dst: Shell) -> Container:
    words = ["migrrdma", "migrate", client.name, dst.node.data_address, "--tcp", "keep"]
    with _command(client.shell, f"migrrdma migrate {client.name} dst --tcp keep"):
        moving = subprocess.Popen(
            client.shell.command(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        assert moving.stdout is not None  # noqa: S101 - it is a pipe
        for line in moving.stdout:
            console.print(f"  {time.monotonic() - _began:6.1f} s  [bold]{line.rstrip()}[/]", soft_wrap=True)
        if moving.wait():
            raise RackError(f"{client.name} did not move: exit code {moving.returncode}")
    return client.on(dst)


def main(*, fast: bool) -> int:
    """Move an RDMA application; exit code 1 if it lost, repeated, reordered or corrupted anything."""
    rack = choose_rack(kind="fast" if fast else None)
    src, dst, peer = rack.shell(SRC), rack.shell(DST), rack.shell(PEER)
    client, server = _prepare(src, dst, peer)

    if "kernel-rdma" not in rack.offers:
        console.print(
            "[bold yellow]The RDMA device is a software one[/] and the machines are namespaces of this one's kernel; "
            "`make demo` shows the same on the kernel's own RDMA. Docker, runc, CRIU and the agents are real.",
            soft_wrap=True,
        )
    console.rule("an RDMA application on two machines; each end prints its rate once a second")
    with _command(peer, f"docker run -d --runtime=migrrdma {peer.rdma_options[0]} … {server.name}"):
        server.run()
    with _command(src, f"docker run -d --runtime=migrrdma {src.rdma_options[0]} … {client.name}"):
        client.run()
    watched = [Watch(server), Watch(client)]
    for one in watched:
        one.wait(4)

    console.rule("the client moves; the server stays and waits")
    moved = _move(client, dst)
    watched.append(Watch(moved))
    for one in (watched[0], watched[2]):
        one.wait(4)
    workload.stop(server)
    verdicts = [(end, workload.verdict(end)) for end in (server, moved)]
    for one in watched:
        one.end()

    console.rule("where the time went")
    console.print(dst.run("migrrdma", "timeline").stdout.rstrip(), markup=False, soft_wrap=True)
    console.rule("what arrived")
    for end, verdict in verdicts:
        colour = "green" if verdict.ok else "red"
        console.print(f"  {end.shell.node.name:<5} [bold {colour}]{verdict.text}[/]", soft_wrap=True)
    return 0 if all(verdict.ok for _, verdict in verdicts) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(fast="--fast" in sys.argv[1:]))
    except RackError as error:
        sys.exit(f"demo: {error}")
