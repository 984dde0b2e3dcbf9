"""The rack does what its command promises: the tests after this rely on it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import partition
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


def test_the_shells_that_tests_get_lead_to_this_rack(rack: Rack, src: Shell, dst: Shell, peer: Shell) -> None:
    """In a run of every test the fast rack's nodes have been asked for before these."""
    assert {shell.places.kind for shell in (src, dst, peer)} == {rack.kind}


@pytest.mark.needs("kernel-rdma")
def test_every_node_has_its_name_its_addresses_and_its_rdma_device(rack: Rack) -> None:
    for node in NODES:
        shell = rack.shell(node)
        assert shell.run("hostname").stdout.strip() == node.name
        gids = shell.sh("cat /sys/class/infiniband/rxe0/ports/1/gids/*").stdout
        address = "".join(f"{int(part):02x}" for part in node.data_address.split("."))
        assert f"ffff:{address[:4]}:{address[4:]}" in gids
        assert "state ACTIVE" in shell.run("rdma", "link", "show", "rxe0/1").stdout


_IDENTITIES = {
    "boot ID": "cat /proc/sys/kernel/random/boot_id",
    "machine ID": "cat /etc/machine-id",
    "host name": "hostname",
    "host key": "cat /etc/ssh/ssh_host_ed25519_key.pub | cut -d' ' -f2",
    "random number": "od -An -N16 -tx1 /dev/urandom",
}


@pytest.mark.parametrize("what", _IDENTITIES)
def test_no_two_nodes_have_the_same(rack: Rack, what: str) -> None:
    """Programs take two nodes with one boot ID for one machine: UCX then talks over shared memory."""
    found = [rack.shell(node).sh(_IDENTITIES[what]).stdout.strip() for node in NODES]
    assert all(found), found
    assert len(set(found)) == len(NODES), found


@pytest.mark.needs("own-kernel")
def test_a_containers_boot_id_is_its_nodes(rack: Rack) -> None:
    in_a_container = "docker run --rm rdma-tools:trixie cat /proc/sys/kernel/random/boot_id"
    for node in NODES:
        shell = rack.shell(node)
        assert shell.sh(in_a_container).stdout == shell.sh(_IDENTITIES["boot ID"]).stdout


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
    partition.is_silent_and_heals(rack, src)


@pytest.mark.needs("netem")
def test_netem_delays_what_a_node_sends(rack: Rack, src: Shell) -> None:
    rack.netem(SRC, ["delay", "300ms"])
    try:
        times = src.run("ping", "-c2", "-i0.2", DST.data_address).stdout
        assert float(times.split("min/avg/max")[1].split("=")[1].split("/")[0]) >= 300
    finally:
        rack.heal(SRC)


@pytest.mark.needs("power")
def test_a_node_without_power_is_silent_and_boots_with_what_it_had_written(rack: Rack, src: Shell) -> None:
    node = rack.shell(DST)
    before = node.sh(_IDENTITIES["boot ID"]).stdout
    node.sh("echo written >/root/written; sync /root/written /root")
    rack.power_off(DST)
    assert not rack.running(DST)
    with pytest.raises(NodeCommandError, match="100% packet loss"):
        src.run("ping", "-c1", "-W2", DST.data_address)
    rack.boot(DST)
    assert node.run("cat", "/root/written").stdout == "written\n"
    assert node.sh(_IDENTITIES["boot ID"]).stdout != before
    src.run("ping", "-c1", "-W2", DST.data_address)


def test_up_on_a_rack_that_is_up_does_nothing_and_reset_goes_back(rack: Rack, src: Shell) -> None:
    boot = src.run("cat", "/proc/sys/kernel/random/boot_id").stdout
    rack.up()
    assert src.run("cat", "/proc/sys/kernel/random/boot_id").stdout == boot
    src.run("touch", "/root/left-behind")
    drawn = set()
    for _ in range(2):
        rack.reset()
        drawn.add(src.sh(_IDENTITIES["random number"]).stdout)
    with pytest.raises(NodeCommandError):
        src.run("test", "-e", "/root/left-behind")
    assert len(drawn) == 2, "a node put back to its snapshot draws the same random numbers again"
