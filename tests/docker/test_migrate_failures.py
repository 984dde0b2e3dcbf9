"""``migrrdma migrate`` under what goes wrong, or merely on, while it moves a container."""

from __future__ import annotations

from collections.abc import Callable

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
