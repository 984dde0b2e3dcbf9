"""The rack does what its command promises: the tests after this rely on it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from migrrdma_lab.choice import choose_rack
from migrrdma_lab.errors import NodeCommandError, RackError
from migrrdma_lab.plan import DST, NODES, REPOSITORY, SRC
from migrrdma_lab.rack import Rack
from migrrdma_lab.shell import Shell


def _rack(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [REPOSITORY / "lab" / "rack", *words], capture_output=True, text=True, timeout=200, check=False
    )


@pytest.mark.needs("kernel-rdma")
def test_every_node_has_its_name_its_addresses_and_its_rdma_device(rack: Rack) -> None:
    for node in NODES:
        shell = rack.shell(node)
        assert shell.run("hostname").stdout.strip() == node.name
        gids = shell.sh("cat /sys/class/infiniband/rxe0/ports/1/gids/*").stdout
        address = "".join(f"{int(part):02x}" for part in node.data_address.split("."))
        assert f"ffff:{address[:4]}:{address[4:]}" in gids
        assert "state ACTIVE" in shell.run("rdma", "link", "show", "rxe0/1").stdout


def test_nodes_continued_from_one_snapshot_do_not_draw_the_same_random_numbers(rack: Rack) -> None:
    drawn = {rack.shell(node).sh("od -An -N16 -tx1 /dev/urandom").stdout for node in NODES}
    assert len(drawn) == len(NODES)


def test_ssh_passes_streams_and_exit_code_through(rack: Rack) -> None:
    assert rack.places.run.exists()
    result = _rack("ssh", "src", "echo out; echo err >&2; exit 7")
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 7)
    assert _rack("ssh", "src", "--", "printf", "%s|", "a b", "$HOME").stdout == "a b|$HOME|"


def test_files_are_copied_to_a_node_and_back(rack: Rack, tmp_path: Path) -> None:
    assert rack.places.run.exists()
    (tmp_path / "there").write_bytes(bytes(range(256)))
    assert _rack("cp", str(tmp_path / "there"), "src:/tmp/there").returncode == 0
    assert _rack("cp", "src:/tmp/there", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back").read_bytes() == bytes(range(256))


def test_status_is_for_programs_too(rack: Rack) -> None:
    assert rack.places.run.exists()
    result = _rack("status", "--json")
    assert [node["name"] for node in json.loads(result.stdout)] == ["src", "dst", "peer"]
    assert result.returncode == 0


def test_unknown_names_are_refused_by_name() -> None:
    result = _rack("ssh", "nowhere", "true")
    assert result.returncode == 1
    assert result.stderr == "rack: error: there is no node 'nowhere'; the rack has src, dst, peer\n"
    with pytest.raises(RackError, match="there is no release 'potato'"):
        choose_rack("potato")
    with pytest.raises(RackError, match="there is no rack 'slow'; there are emulated"):
        choose_rack(kind="slow")


def test_a_partition_is_silent_and_heals(rack: Rack, src: Shell) -> None:
    ping = ("ping", "-c1", "-W2", DST.data_address)
    src.run(*ping)
    rack.partition(DST)
    try:
        with pytest.raises(NodeCommandError, match="100% packet loss"):
            src.run(*ping)
        assert "state UP" in rack.shell(DST).run("ip", "link", "show", "rd0").stdout
    finally:
        rack.heal(DST)
    src.run(*ping)


@pytest.mark.needs("netem")
def test_netem_delays_what_a_node_sends(rack: Rack, src: Shell) -> None:
    rack.netem(SRC, ["delay", "300ms"])
    try:
        times = src.run("ping", "-c2", "-i0.2", DST.data_address).stdout
        assert float(times.split("min/avg/max")[1].split("=")[1].split("/")[0]) >= 300
    finally:
        rack.heal(SRC)


def test_up_on_a_rack_that_is_up_does_nothing_and_reset_goes_back(rack: Rack, src: Shell) -> None:
    boot = src.run("cat", "/proc/sys/kernel/random/boot_id").stdout
    rack.up()
    assert src.run("cat", "/proc/sys/kernel/random/boot_id").stdout == boot
    src.run("touch", "/root/left-behind")
    rack.reset()
    with pytest.raises(NodeCommandError):
        src.run("test", "-e", "/root/left-behind")
