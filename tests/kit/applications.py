"""Real applications, unmodified and from packages, in containers that the tests move."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from migrrdma_lab import rdma
from migrrdma_lab.container_images import application_archive
from migrrdma_lab.containers import Container
from migrrdma_lab.plan import APPLICATION_IMAGE, OLDER_APPLICATION_IMAGE, Places
from migrrdma_lab.shell import Shell

ON_NODE = "/root/apps"
IN_CONTAINER = "/apps"

_PYTHONS = {APPLICATION_IMAGE: "3.13", OLDER_APPLICATION_IMAGE: "3.11"}
"""Of the images: a wheel is chosen for them, whatever Python runs the tests."""

_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64")
"""Of wheels that run there; pip adds the older ones for the second name alone."""


def wheel(places: Places, requirement: str, image: str = APPLICATION_IMAGE) -> Path:
    """The folder of a Python package that is no other package's business: downloaded once, and kept with the images."""
    folder = places.build / "applications" / requirement
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps",
             "--only-binary=:all:", f"--python-version={_PYTHONS[image]}", *(f"--platform={one}" for one in _PLATFORMS),
             f"--target={unfinished}", requirement],
            check=True, timeout=600,
        )  # fmt: skip
        unfinished.rename(folder)
    return folder


def load_image(places: Places, nodes: Sequence[Shell], image: str = APPLICATION_IMAGE) -> None:
    """Give the nodes' Docker an image of applications."""
    archive = application_archive(places, image)

    def load(node: Shell) -> None:
        if node.run("docker", "image", "inspect", image, check=False).returncode == 0:
            return
        node.copy(str(archive), ":/root/image.tar")
        node.run("docker", "load", "-q", "-i", "/root/image.tar", timeout=300)
        node.run("rm", "/root/image.tar")

    with ThreadPoolExecutor() as pool:
        list(pool.map(load, nodes))


def put(files: Sequence[Path], nodes: Sequence[Shell]) -> None:
    """Copy files and folders to where `container` shows them to its program, `IN_CONTAINER`."""

    def put_on(node: Shell) -> None:
        node.run("mkdir", "-p", ON_NODE)
        for file in files:
            node.copy(str(file), f":{ON_NODE}/")

    with ThreadPoolExecutor() as pool:
        list(pool.map(put_on, nodes))


def container(
    node: Shell, name: str, command: Sequence[str], address: str, environment: Sequence[str] = (),
    options: Sequence[str] = (), image: str = APPLICATION_IMAGE,
) -> Container:  # fmt: skip
    """An application with an address that moves with it; a node has one processor, which it leaves to Docker."""
    node.run("mkdir", "-p", ON_NODE)
    all_options = [
        f"--volume={ON_NODE}:{IN_CONTAINER}:ro",
        *(f"--env={one}" for one in environment),
        *options,
    ]
    return rdma.container(node, name, ["nice", "-n", "19", *command], address, all_options, image)


@dataclass(frozen=True)
class Move:
    """Which end, where to, and whether by one command, ``migrrdma migrate``, or by docker's."""

    end: str
    to: Shell
    live: bool = False
    rounds: int | None = None
    """Of memory that goes ahead; None: as many as pay."""


Moves = Sequence[Move]


@dataclass
class Ends:
    """A server and a client with traffic between them."""

    server: Container
    client: Container

    def move(self, one: Move) -> None:
        """Move one of them; nothing is left of it behind it."""
        one.to.run("mkdir", "-p", ON_NODE)  # what its container mounts
        container: Container = getattr(self, one.end)
        options = [] if one.rounds is None else [f"--rounds={one.rounds}"]
        moved = rdma.migrate(container, one.to, *options) if one.live else rdma.move(container, one.to)
        setattr(self, one.end, moved)


_ROUNDS = "^[0-9]+ rounds"
"""What the programs of these tests print once a second."""


def move_in_mid_traffic(ends: Ends, moves: Moves, ends_with: int = 0) -> None:
    """Move the ends in turn while the client counts rounds, and have it end: it judges what it has read."""
    ends.client.wait_for_line(_ROUNDS)
    for one in moves:
        ends.move(one)
        ends.client.wait_for_line(_ROUNDS, 120, after=len(ends.client.lines()))
    ends.client.docker("kill", "--signal=TERM", ends.client.name)
    code, lines = end_of(ends.client)
    assert code == ends_with, lines
    assert any(one.startswith("ok, ") for one in lines), lines


def end_of(one: Container, seconds: float = 300) -> tuple[int, list[str]]:
    """Wait for an application's end: its exit code, and what it has printed here."""
    code = int(one.docker("wait", one.name, timeout=seconds).stdout)
    return code, one.lines()
