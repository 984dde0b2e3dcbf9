"""The fast rack does what its command promises: hosts as good as machines, that come to harm on request."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import partition
import pytest
from migrrdma_lab import project
from migrrdma_lab.errors import NodeCommandError, RackError
from migrrdma_lab.namespaces import layers
from migrrdma_lab.namespaces.keeping import children
from migrrdma_lab.namespaces.rack import FastRack
from migrrdma_lab.plan import NODES, PEER, RELEASES, REPOSITORY, SRC, Places
from migrrdma_lab.shell import Shell
from runtime_container import RuntimeContainer


def _rack(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [REPOSITORY / "lab" / "rack", "--fast", *words],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize(
    "what",
    ["hostname", "cat /proc/sys/kernel/random/boot_id", "cat /etc/machine-id", "cat /etc/ssh/ssh_host_*_key.pub",
     "cut -d. -f1 /proc/uptime", "cat /sys/class/net/rd0/address", "cat /sys/class/infiniband/rxe0/ports/1/gids/*",
     "od -An -N16 -tx1 /dev/urandom"],
)  # fmt: skip
def test_no_two_nodes_are_the_same_machine(rack: FastRack, what: str) -> None:
    assert len({rack.shell(node).sh(what).stdout for node in NODES}) == len(NODES)


def test_every_node_is_a_debian_with_its_services_and_the_project(rack: FastRack) -> None:
    for node in NODES:
        shell = rack.shell(node)
        assert shell.run("hostname").stdout.strip() == node.name
        assert shell.run("systemctl", "is-system-running").stdout.strip() == "running"
        assert "Looks good" in shell.run("criu", "check").stdout
        said = shell.run("migrrdma", "check", check=False).stdout
        assert f"agent {node.name} answers" in said
        assert "\nfailure" not in said
        gids = shell.sh("cat /sys/class/infiniband/rxe0/ports/1/gids/*").stdout
        address = "".join(f"{int(part):02x}" for part in node.data_address.split("."))
        assert f"ffff:{address[:4]}:{address[4:]}" in gids


@pytest.mark.parametrize(
    "command", ["podman run --rm --network=none --rootfs /:O true", "runc --version", "crun --version"]
)
def test_other_engines_and_runtimes_are_there(src: Shell, command: str) -> None:
    src.sh(command)


def test_a_node_sees_no_cgroups_processes_and_networks_but_its_own(src: Shell) -> None:
    assert src.run("cat", "/proc/1/comm").stdout.strip() == "systemd"
    assert "system.slice" in src.run("ls", "/sys/fs/cgroup").stdout
    links = {
        line.split(":")[1].strip().split("@")[0] for line in src.run("ip", "-o", "link").stdout.splitlines()
    }
    assert {"lo", "rd0"} <= links <= {"lo", "rd0", "docker0"}
    assert "rack-shell" in src.run("cat", "/proc/self/cgroup").stdout


def test_ssh_passes_streams_and_exit_code_through(rack: FastRack) -> None:
    assert rack.running(SRC)
    result = _rack("ssh", "src", "echo out; echo err >&2; exit 7")
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 7)
    assert _rack("ssh", "src", "--", "printf", "%s|", "a b", "$HOME").stdout == "a b|$HOME|"


def test_files_and_folders_are_copied_to_a_node_and_back(src: Shell, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_bytes(bytes(range(256)))
    src.copy(str(tmp_path / "there"), ":/tmp/folder")
    src.copy(str(tmp_path / "there" / "file"), ":/tmp/folder")  # into the folder that is there now
    src.copy(":/tmp/folder", str(tmp_path / "back"))
    assert (tmp_path / "back" / "file").read_bytes() == bytes(range(256))
    src.run("rm", "-r", "/tmp/folder")


def test_a_command_that_is_given_up_leaves_no_process_behind(src: Shell) -> None:
    with pytest.raises(RackError, match="did not end in 1 s"):
        src.run("sleep", "4321", timeout=1)
    src.sh("timeout 20 sh -c 'while pgrep -f [4]321; do sleep 0.1; done'")


def test_what_only_the_other_rack_has_is_refused_by_name(rack: FastRack) -> None:
    with pytest.raises(RackError, match="the fast rack does not offer netem"):
        rack.netem(SRC, ["delay", "1ms"])
    with pytest.raises(RackError, match="the fast rack runs trixie only"):
        FastRack(Places(RELEASES["bookworm"], FastRack.kind))


def test_a_partition_is_silent_and_heals(rack: FastRack, src: Shell) -> None:
    partition.is_silent_and_heals(rack, src)


def test_a_node_whose_power_fails_cleans_nothing_up_and_keeps_its_disk(rack: FastRack) -> None:
    shell = rack.shell(PEER)
    shell.run(
        "systemd-run", "--collect", "sh", "-c",
        "trap 'touch /root/cleaned-up' EXIT TERM; echo written >/root/written; touch /tmp/volatile; sleep 1000 & wait",
    )  # fmt: skip
    shell.run("timeout", "20", "sh", "-c", "until [ -e /tmp/volatile ]; do sleep 0.1; done")
    shell.run("docker", "create", "--name=kept", "--restart=always", "rdma-tools:trixie", "sleep", "1000")
    shell.run("docker", "start", "kept")
    boot, machine = (shell.run("cat", path).stdout for path in (_BOOT_ID, "/etc/machine-id"))
    rack.power_off(PEER)
    assert not rack.running(PEER)
    with pytest.raises(RackError, match="peer does not run"):
        shell.run("true")
    rack.boot(PEER)
    assert shell.run("cat", "/root/written").stdout == "written\n"
    shell.sh("! [ -e /root/cleaned-up ] && ! [ -e /tmp/volatile ]")
    assert shell.run("cat", _BOOT_ID).stdout != boot
    assert shell.run("cat", "/etc/machine-id").stdout == machine
    assert shell.run("docker", "inspect", "-f", "{{.State.Running}}", "kept").stdout.strip() == "true"
    shell.run("docker", "rm", "-f", "kept")


_BOOT_ID = "/proc/sys/kernel/random/boot_id"


_WAITS_FOR_IT = """
import os, socket
connection = socket.create_server(("10.78.0.13", 7779)).accept()[0]
os.mkdir("/root/connected")
connection.recv(1)
"""
_HEARS_OF_IT = """
import os, socket
connection = socket.create_connection(("10.78.0.13", 7779))
try:
    connection.recv(1)
finally:
    os.mkdir("/root/heard")
"""


def test_a_node_whose_power_fails_says_nothing_to_anybody(rack: FastRack, src: Shell) -> None:
    """As the kernel does of a process that is killed: the other end of its connection would break."""
    shell = rack.shell(PEER)
    shell.run("systemd-run", "--collect", "python3", "-c", _WAITS_FOR_IT)
    shell.sh("timeout 60 sh -c 'until ss -Hltn sport = 7779 | grep -q .; do sleep 0.1; done'")
    src.run("systemd-run", "--collect", "--unit=hears", "python3", "-c", _HEARS_OF_IT)
    shell.sh("timeout 60 sh -c 'until [ -e /root/connected ]; do sleep 0.1; done'")
    rack.power_off(PEER)
    rack.boot(PEER)
    src.sh("! [ -e /root/heard ]; systemctl is-active hears; systemctl stop hears")
    shell.run("rmdir", "/root/connected")


def test_a_node_boots_with_another_uptime(rack: FastRack) -> None:
    rack.power_off(PEER)
    rack.boot(PEER, uptime=7_000_000)
    assert float(rack.shell(PEER).run("cat", "/proc/uptime").stdout.split()[0]) > 7_000_000


def test_a_full_disk_takes_nothing_more_until_there_is_room(rack: FastRack, src: Shell) -> None:
    rack.fill_disk(SRC)
    try:
        for path in ("/root", "/var/lib/docker", "/var/lib/migrrdma"):
            with pytest.raises(NodeCommandError, match="No space left on device"):
                src.sh(f"head -c 1000000 /dev/zero >{path}/too-much")
    finally:
        rack.free_disk(SRC)
    src.sh("head -c 1000000 /dev/zero >/root/enough; rm /root/enough /root/too-much /var/lib/*/too-much")


@pytest.mark.usefixtures("on_the_nodes")
def test_what_a_runtimes_container_writes_is_kept_while_its_nodes_disk_is_full(
    rack: FastRack, src: Shell
) -> None:
    """Tests that fill a disk wait for lines of containers; each of these is longer than a page."""
    program = "n=0; while :; do n=$((n+1)); printf '%05000d\\n' $n; sleep 0.1; done"
    container = RuntimeContainer(src, "writes", "10.78.0.190", ["sh", "-c", program]).prepare()
    try:
        container.run().wait_for_line("^0+[1-9]")
        rack.fill_disk(SRC)
        try:
            container.wait_for_line("^0+[1-9]", after=len(container.lines()) + 3)
        finally:
            rack.free_disk(SRC)
    finally:
        container.remove()


def test_for_a_frozen_node_no_time_passes(rack: FastRack) -> None:
    shell = rack.shell(PEER)
    script = "n=0; while :; do n=$((n+1)); echo $n >/run/count; sleep 0.01; done"
    shell.run("systemd-run", "--collect", "--unit=counter", "sh", "-c", script)
    shell.run("timeout", "20", "sh", "-c", "until [ -s /run/count ]; do sleep 0.1; done")
    counter = Path(f"/proc/{rack.host(PEER).init()}/root/run/count")  # the node itself answers nothing then
    rack.freeze(PEER)
    try:
        first = counter.read_text()
        subprocess.run(["sleep", "0.5"], check=True)  # what is measured, not what is waited for
        assert counter.read_text() == first
    finally:
        rack.thaw(PEER)
    shell.run(
        "timeout", "20", "sh", "-c", f"until [ $(cat /run/count) -gt {first.strip()} ]; do sleep 0.1; done"
    )
    shell.run("systemctl", "stop", "counter")


def test_up_on_a_rack_that_is_up_does_nothing_and_reset_goes_back(rack: FastRack, src: Shell) -> None:
    boot = src.run("cat", _BOOT_ID).stdout
    rack.up()
    assert src.run("cat", _BOOT_ID).stdout == boot
    src.run("touch", "/root/left-behind")
    rack.reset()
    with pytest.raises(NodeCommandError):
        src.run("test", "-e", "/root/left-behind")


def test_two_that_boot_a_node_at_once_boot_it_once(rack: FastRack) -> None:
    rack.power_off(PEER)
    with ThreadPoolExecutor(2) as pool:
        for booted in [pool.submit(FastRack(rack.places).boot, PEER) for _ in range(2)]:
            booted.result()
    assert rack.shell(PEER).run("systemctl", "is-system-running").stdout == "running\n"


def test_layers_in_use_are_not_removed_for_newer_ones(rack: FastRack) -> None:
    in_use = layers.project_layer(rack.places, project.tree_state())
    former = rack.places.disks / "project-former"
    former.mkdir()
    rack.keeper.remove_unused("project-*")
    assert in_use.exists()
    assert not former.exists()


def test_up_says_that_the_devices_are_gone_and_reset_makes_them_anew(rack: FastRack, src: Shell) -> None:
    entered = int((rack.places.run / "device" / "pid").read_text())
    (daemon,) = children(entered)
    ended = os.pidfd_open(daemon)
    os.kill(daemon, signal.SIGKILL)
    assert select.select([ended], [], [], 20)[0]
    os.close(ended)
    with pytest.raises(RackError, match="the daemon of their RDMA devices has ended"):
        rack.up()
    assert rack.running(SRC)
    rack.reset()
    assert "rxe0" in src.run("ibv_devices").stdout


def test_status_and_logs_are_there(rack: FastRack) -> None:
    assert [node.running for node in rack.status()] == [True] * 3
    assert "Startup finished" in rack.logs(SRC)
