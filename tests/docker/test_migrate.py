"""``migrrdma migrate``: a running container goes on on another host, by one command and under its own engine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import workload
from counting import goes_on, numbers
from migrrdma_lab import rdma
from migrrdma_lab.containers import COUNTER, Container
from migrrdma_lab.errors import NodeCommandError
from migrrdma_lab.shell import Shell

Register = Callable[[Container], Container]


@pytest.fixture(scope="module")
def on_the_nodes(src: Shell, dst: Shell, peer: Shell, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The integrity workload."""
    workload.build(tmp_path_factory.mktemp("workload")).put(src, dst, peer)


def _migrate(container: Container, to: Shell, *options: str) -> dict[str, Any]:
    """Move it; the receipt."""
    said = container.shell.run(
        "migrrdma", "migrate", container.name, to.node.data_address, "--json", *options, timeout=300
    ).stdout
    receipt: dict[str, Any] = json.loads(said.splitlines()[-1])["receipt"]
    return receipt


def _is_nowhere(container: Container) -> bool:
    return container.docker("container", "inspect", container.name, check=False).returncode != 0


def _nothing_is_left(node: Shell) -> None:
    """Of what a move makes while it is under way."""
    assert node.sh(
        "ls /var/lib/migrrdma/agent/moves /var/lib/migrrdma/staged 2>/dev/null || :"
    ).stdout.split() in (
        [],
        ["/var/lib/migrrdma/agent/moves:", "/var/lib/migrrdma/staged:"],
        ["/var/lib/migrrdma/agent/moves:"],
        ["/var/lib/migrrdma/staged:"],
    )


def test_a_container_without_rdma_moves_there_and_back(src: Shell, dst: Shell, containers: Register) -> None:
    source = containers(Container(src, "moves", ["sh", "-c", COUNTER])).run()
    there = containers(source.on(dst))
    source.wait_for_line("^3")
    receipt = _migrate(source, dst)
    assert receipt["destination"] == "dst"
    assert _is_nowhere(source)
    goes_on(there)
    first = numbers(there)[0]
    assert first > 3
    _migrate(there, src)
    assert _is_nowhere(there)
    goes_on(source)
    assert numbers(source)[0] > first
    for node in (src, dst):
        _nothing_is_left(node)


def test_volumes_and_folders_go_along_when_that_is_wanted(
    src: Shell, dst: Shell, containers: Register
) -> None:
    for node in (src, dst):
        node.sh("docker volume rm -f ledger >/dev/null; rm -rf /root/inbox")
    src.sh("mkdir /root/inbox && echo letter >/root/inbox/first")
    script = f"echo old >/ledger/entry; echo scratch >/nameless/note; {COUNTER} & wait"
    options = ["--volume=ledger:/ledger", "--volume=/root/inbox:/inbox", "--volume=/nameless"]
    source = containers(Container(src, "moves", ["sh", "-c", script], options)).run()
    there = containers(source.on(dst))
    source.wait_for_line("^3")
    with pytest.raises(NodeCommandError) as refused:
        _migrate(source, dst)
    for missing in ("there is no volume ledger", "there is no /root/inbox", "a volume without a name"):
        assert missing in refused.value.stderr
    assert "--with-volumes" in refused.value.stderr
    _migrate(source, dst, "--with-volumes")
    assert _is_nowhere(source)
    goes_on(there)
    seen = there.docker("exec", there.name, "cat", "/ledger/entry", "/inbox/first", "/nameless/note").stdout
    assert seen.split() == ["old", "letter", "scratch"]
    # What is there is used as it is from now on: of it the host of before has its own.
    src.sh("echo other >/var/lib/docker/volumes/ledger/_data/entry")
    with pytest.raises(NodeCommandError, match="a volume without a name"):
        _migrate(there, src)
    _migrate(there, src, "--with-volumes")
    goes_on(source)
    assert source.docker("exec", source.name, "cat", "/ledger/entry").stdout.split() == ["other"]
    assert source.docker("exec", source.name, "cat", "/nameless/note").stdout.split() == ["scratch"]
    for node in (src, dst):
        _nothing_is_left(node)


@pytest.mark.usefixtures("on_the_nodes")
def test_either_end_of_rdma_traffic_moves_and_no_byte_is_lost(
    src: Shell, dst: Shell, peer: Shell, containers: Register
) -> None:
    client, server = map(containers, workload.pair(src, peer))
    server.run()
    client.run()
    rdma.join_data_network(dst)
    for one in (client, server):
        one.wait_for_line(workload.RATE)
    moved, back = containers(client.on(dst)), containers(server.on(src))
    # The version of the guest library that it runs is brought along where it is missing.
    dst.sh("mv $(readlink -f /var/lib/migrrdma/guest/current) /root/guest-of-before")
    _migrate(client, dst, "--tcp", "keep")
    dst.sh(
        "diff -r $(readlink -f /var/lib/migrrdma/guest/current) /root/guest-of-before; rm -r /root/guest-of-before"
    )
    moved.wait_for_line(workload.RATE, after=1)
    server.wait_for_line(workload.RATE, after=len(server.lines()))
    _migrate(server, src, "--tcp", "keep")
    back.wait_for_line(workload.RATE, after=1)
    moved.wait_for_line(workload.RATE, after=len(moved.lines()))
    workload.stop(back)
    for one in (moved, back):
        verdict = workload.verdict(one)
        assert verdict.ok, f"{one.name}: {verdict.text}"


def test_evacuate_moves_what_it_can_and_names_the_rest(src: Shell, dst: Shell, containers: Register) -> None:
    ours = [containers(Container(src, f"moves{number}", ["sh", "-c", COUNTER])).run() for number in range(3)]
    there = [containers(one.on(dst)) for one in ours]
    hindered = containers(Container(src, "hindered", ["sh", "-c", COUNTER])).run()
    containers(hindered.on(dst)).create()
    stays = containers(Container(src, "stays", ["sleep", "1000"], runtime="runc")).run()
    for one in (*ours, hindered):
        one.wait_for_line("^3")
    to = dst.node.data_address
    with pytest.raises(NodeCommandError) as refused:
        src.run("migrrdma", "evacuate", to, "--parallel", "2", "--json", timeout=300)
    told = [json.loads(line) for line in refused.value.stdout.splitlines()]
    assert {one["container"]: one["moved"] for one in told} == {
        "moves0": True,
        "moves1": True,
        "moves2": True,
        "hindered": False,
    }
    assert "stays stays: it was not started with --runtime=migrrdma" in refused.value.stderr
    for one in there:
        goes_on(one)
    goes_on(hindered)
    assert stays.running()


@pytest.mark.usefixtures("on_the_nodes")
def test_what_would_hinder_it_is_listed_and_nothing_is_touched(
    src: Shell, dst: Shell, peer: Shell, containers: Register
) -> None:
    client, server = workload.pair(src, peer)
    server = containers(server).run()
    client = containers(client).run()
    client.wait_for_line(workload.RATE)
    taken = containers(Container(dst, client.name, ["sleep", "1000"])).run()
    with pytest.raises(NodeCommandError) as refused:
        src.run("migrrdma", "migrate", client.name, dst.node.data_address, "--dry-run", "--json")
    listed = json.loads(re.search(r"\{.*\}", str(refused.value), re.DOTALL)[0])["obstacles"]  # type: ignore[index]
    text = json.dumps(listed)
    assert "name" in text and client.name in text
    assert "established TCP" in text
    client.wait_for_line(workload.RATE, after=len(client.lines()))
    assert taken.docker("inspect", "-f", "{{.State.Running}}", taken.name).stdout.strip() == "true"
