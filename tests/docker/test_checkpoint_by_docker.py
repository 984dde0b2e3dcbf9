"""Ordinary containers are checkpointed and restored by Docker's own commands through the runtime."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from counting import goes_on, numbers
from migrrdma_lab.containers import COUNTER, Container, carry
from migrrdma_lab.errors import NodeCommandError
from migrrdma_lab.rdma import join_data_network
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]


def test_a_container_goes_on_where_it_was_checkpointed_ten_times_in_a_row(
    src: Shell, containers: Register
) -> None:
    counter = containers(Container(src, "ten")).run()
    counter.wait_for_line("^2$")
    for round_ in range(10):
        counter.checkpoint(f"round{round_}")
        assert not counter.running()
        counter.restore(f"round{round_}")
        goes_on(counter)


def test_leave_running_takes_a_checkpoint_of_a_container_that_never_stops(
    src: Shell, containers: Register
) -> None:
    counter = containers(Container(src, "leave")).run()
    counter.wait_for_line("^2$")
    counter.checkpoint("once", "--leave-running")
    assert counter.running()
    goes_on(counter)
    counter.docker("kill", counter.name)
    last = numbers(counter)[-1]
    counter.restore("once")
    before = len(counter.lines())
    counter.wait_for_line("^[0-9]+", after=before)
    # It came back as it was when the checkpoint was taken, which is before it was killed.
    assert numbers(counter)[before] <= last


def test_the_import_starts_the_container_when_asked_to(src: Shell, dst: Shell, containers: Register) -> None:
    source = containers(Container(src, "starter")).run()
    destination = containers(source.on(dst)).create()
    source.wait_for_line("^3$")
    for node in (src, dst):
        node.run("rm", "-rf", "/tmp/ck")
    source.checkpoint("move", "--checkpoint-dir", "/tmp/ck")
    carry("/tmp/ck", "move", src, dst)
    dst.run("migrrdma", "checkpoint", "import", "--start", "/tmp/ck/move", "starter")
    assert destination.running()
    goes_on(destination)
    assert numbers(destination)[0] == numbers(source)[-1] + 1


def test_a_terminal_bind_mounts_and_volumes_come_along(src: Shell, containers: Register) -> None:
    src.sh("mkdir -p /tmp/bound; docker volume create rack-volume; rm -f /tmp/bound/out")
    script = (
        "exec 3>>/bound/out 4>>/volume/out; i=0; "
        "while :; do i=$((i+1)); echo $i; echo $i >&3; echo $i >&4; sleep 0.2; done"
    )
    options = ("-t", "-v", "/tmp/bound:/bound", "-v", "rack-volume:/volume")
    counter = containers(Container(src, "mounts", ("sh", "-c", script), options)).run()
    counter.wait_for_line("^2")
    counter.checkpoint("with-terminal")
    counter.restore("with-terminal")
    goes_on(counter)
    assert counter.docker("exec", "mounts", "sh", "-c", "test -t 0 < /proc/1/fd/0").returncode == 0
    counter.docker("stop", "-t", "0", "mounts")
    last = numbers(counter)[-1]
    for path in ("/tmp/bound/out", "/var/lib/docker/volumes/rack-volume/_data/out"):
        written = [int(line) for line in src.run("cat", path).stdout.split()]
        assert written[:last] == list(range(1, last + 1)), path
    counter.remove()
    src.run("docker", "volume", "rm", "rack-volume")


_ECHO_SERVER = """
import socket
server = socket.create_server(("10.78.0.13", 7777))
connection, _ = server.accept()
server.close()  # whoever reconnects is refused
while data := connection.recv(4096):
    connection.sendall(data)
"""

_ECHO_CLIENT = """
import socket, time
connection = socket.create_connection(("10.78.0.13", 7777))
stream = connection.makefile("rw")
number = 0
while True:
    number += 1
    print(number, file=stream, flush=True)
    assert int(stream.readline()) == number
    print(number, flush=True)
    time.sleep(0.2)
"""


def test_an_established_tcp_connection_moves_with_the_containers_address(
    src: Shell, dst: Shell, peer: Shell, containers: Register
) -> None:
    for node in (src, dst):
        join_data_network(node)
    options = ("--network=data", "--ip=10.78.0.150")
    client = Container(src, "tcp", ("python3", "-c", _ECHO_CLIENT), options)
    peer.run("systemd-run", "--collect", "--unit=echo-server", "python3", "-c", _ECHO_SERVER)
    try:
        peer.sh("timeout 30 sh -c 'until ss -Hltn sport = 7777 | grep -q .; do sleep 0.2; done'")
        source = containers(client).run()
        source.wait_for_line("^3$")
        src.run("rm", "-rf", "/tmp/ck")
        dst.run("rm", "-rf", "/tmp/ck")
        source.checkpoint("tcp", "--checkpoint-dir", "/tmp/ck")
        carry("/tmp/ck", "tcp", src, dst)
        destination = containers(client.on(dst)).create()
        dst.run("migrrdma", "checkpoint", "import", "/tmp/ck/tcp", "tcp")
        destination.restore("tcp")
        goes_on(destination)
        assert numbers(destination)[0] == numbers(source)[-1] + 1
    finally:
        peer.run("systemctl", "stop", "echo-server", check=False)


def test_when_a_restore_fails_the_user_sees_why(src: Shell, containers: Register) -> None:
    """A file that the process had open is gone: CRIU says which, in its log only."""
    src.sh("mkdir -p /tmp/bound; echo here > /tmp/bound/needed")
    command = ("sh", "-c", f"exec 3</bound/needed; {COUNTER}")
    counter = containers(Container(src, "file-gone", command, ("-v", "/tmp/bound:/bound"))).run()
    counter.wait_for_line("^2$")
    counter.checkpoint("good")
    src.run("rm", "/tmp/bound/needed")
    with pytest.raises(NodeCommandError) as failure:
        counter.restore("good")
    assert "/bound/needed" in failure.value.stderr or "bound/needed" in failure.value.stderr
    assert not counter.running()
    src.sh("echo here > /tmp/bound/needed")
    counter.restore("good")
    goes_on(counter)
