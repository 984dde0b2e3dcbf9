"""``migrrdma migrate`` under what goes wrong, or merely on, while it moves a container."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from counting import goes_on
from migrrdma_lab import rdma
from migrrdma_lab.containers import COUNTER, Container
from migrrdma_lab.errors import NodeCommandError
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]

_READER = """
import socket, struct, time
with socket.create_server(("", 9000)) as listener:
    end, _ = listener.accept()
number, rest, said = 0, b"", 0
while data := end.recv(65536):
    rest += data
    while len(rest) >= 8:
        (found,), rest = struct.unpack("<Q", rest[:8]), rest[8:]
        if found != number:
            print(f"lost: {found} after {number}", flush=True)
            raise SystemExit(1)
        number += 1
    if time.time() - said > 0.2:
        said = time.time()
        print("read", number, flush=True)
print("ended", flush=True)
"""
_WRITER = """
import socket, struct, time
end, number = socket.create_connection(("10.78.0.141", 9000)), 0
while True:
    end.sendall(struct.pack("<64Q", *range(number, number + 64)))
    number += 64
    time.sleep(0.002)
"""
_MAPPED = """
import mmap, os, time
path = "/var/counted"
with open(path, "wb") as file:
    file.write(bytes(4096))
memory = mmap.mmap(os.open(path, os.O_RDWR), 4096)
number = 0
while True:
    found = int.from_bytes(memory[:8], "little")
    if found != number:
        print(f"rolled back: {found} after {number}", flush=True)
        raise SystemExit(1)
    number += 1
    memory[:8] = number.to_bytes(8, "little")
    print(number, flush=True)
    time.sleep(0.05)
"""


_CREATE = "runtime.py.* create "
"""The OCI runtime as an engine calls it to make a container."""


@contextmanager
def _migrating(container: Container, to: Shell, step: str) -> Iterator[subprocess.Popen[str]]:
    """Move it, and be there when a step of that has begun; the command comes to its end afterwards."""
    words = ["migrrdma", "migrate", container.name, to.node.data_address, "--json"]
    with subprocess.Popen(
        container.shell.command(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as moving:
        assert moving.stdout is not None
        for line in moving.stdout:
            if f'"step": "{step}"' in line:
                break
        yield moving
        moving.wait(60)


def _migrate(container: Container, to: Shell, *options: str) -> str:
    return container.shell.run(
        "migrrdma", "migrate", container.name, to.node.data_address, *options, timeout=300
    ).stdout


def test_no_byte_that_a_peer_sends_meanwhile_is_lost(
    src: Shell, dst: Shell, peer: Shell, containers: Register
) -> None:
    for node in (src, dst, peer):
        rdma.join_data_network(node)
    network = ("--network=data", "--ip=10.78.0.141")
    reader = containers(Container(src, "reads", ["python3", "-c", _READER], network)).run()
    writer = Container(
        peer, "writes", ["python3", "-c", _WRITER], ("--network=data", "--ip=10.78.0.142", "--restart=always")
    )
    containers(writer).run()
    reader.wait_for_line("^read")
    moved = containers(reader.on(dst))
    _migrate(reader, dst, "--tcp", "keep")
    moved.wait_for_line("^read", after=2)


def test_a_file_that_is_mapped_comes_along_as_it_was_last(
    src: Shell, dst: Shell, containers: Register
) -> None:
    source = containers(Container(src, "maps", ["python3", "-c", _MAPPED])).run()
    source.wait_for_line("^3$")
    moved = containers(source.on(dst))
    _migrate(source, dst)
    moved.wait_for_line("^[0-9]+$", after=2)


def test_what_is_in_a_volume_without_a_name_is_not_left_behind(
    src: Shell, dst: Shell, containers: Register
) -> None:
    source = containers(
        Container(src, "keeps", ["sh", "-c", f"echo precious >/data/it; {COUNTER}"], ("-v", "/data"))
    ).run()
    source.wait_for_line("^3$")
    with pytest.raises(NodeCommandError, match="a volume without a name, at /data"):
        _migrate(source, dst)
    goes_on(source)
    assert source.docker("exec", source.name, "cat", "/data/it").stdout == "precious\n"


def _nothing_is_there(node: Shell, name: str) -> None:
    assert node.run("docker", "container", "inspect", name, check=False).returncode
    assert not node.sh("ls -A /var/lib/migrrdma/staged").stdout.strip()


def test_a_runtime_that_is_killed_while_it_waits_is_a_move_that_has_failed(
    src: Shell, dst: Shell, containers: Register
) -> None:
    source = containers(Container(src, "waited", options=("--restart=always",))).run()
    containers(source.on(dst))
    source.wait_for_line("^3$")
    with _migrating(source, dst, "draining and dumping") as moving:
        dst.run("pkill", "-KILL", "-f", _CREATE)
    assert moving.returncode == 1
    goes_on(source)
    _nothing_is_there(dst, source.name)
    policy = source.docker("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", source.name).stdout
    assert policy.strip() == "always"


def test_what_its_user_pauses_meanwhile_stays_paused(src: Shell, dst: Shell, containers: Register) -> None:
    source = containers(Container(src, "pauses")).run()
    containers(source.on(dst))
    source.wait_for_line("^3$")
    with _migrating(source, dst, "making the container") as moving:
        source.docker("pause", source.name)
    assert moving.returncode == 1
    before = source.lines()
    assert source.docker("inspect", "-f", "{{.State.Paused}}", source.name).stdout.strip() == "true"
    assert source.lines() == before
    source.docker("unpause", source.name)
    goes_on(source)
    _nothing_is_there(dst, source.name)
