"""One daemon and two hosts: unmodified programs send to each other, and what belongs to a process ends with it."""

from __future__ import annotations

import json
import re
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import workload
from guest_build import compile_c
from perftest import IN_SPITE_OF_THE_CLOCK
from software_hosts import HOSTS, SoftwareHosts

PINGPONGS = ("rc", "uc", "ud", "srq")

PERFTEST = (
    "ib_send_bw -e -s 4096", "ib_send_bw -c UD -s 512", "ib_send_bw -c UC -s 4096", "ib_send_bw -c XRC -s 1024",
    "ib_send_bw --use-srq -r 64 -s 1024", "ib_write_bw -q 8 -s 65536", "ib_atomic_bw", "ib_read_lat -s 8",
)  # fmt: skip


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareHosts]:
    hosts = SoftwareHosts(tmp_path_factory.mktemp("hosts"))
    yield hosts
    hosts.stop()


@pytest.fixture(scope="module")
def integrity(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(workload.build(tmp_path_factory.mktemp("workload")).program)


@pytest.fixture(scope="module")
def holder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("holder") / "holder"
    compile_c(program, Path(__file__).parent / "programs" / "holder.c", "-libverbs")
    return program


@pytest.fixture
def held(hosts: SoftwareHosts, holder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process on ``one`` that has the device open."""
    with hosts.start("one", holder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


@pytest.mark.parametrize("kind", PINGPONGS)
def test_pingpong(hosts: SoftwareHosts, kind: str) -> None:
    said, _ = hosts.pair([f"ibv_{kind}_pingpong", "-g", "1", "-n", "200"])
    assert "200 iters in" in said


@pytest.mark.parametrize("command", PERFTEST)
def test_perftest(hosts: SoftwareHosts, command: str) -> None:
    _, said = hosts.pair([*command.split(), "-x", "1", "-n", "200", IN_SPITE_OF_THE_CLOCK])
    assert re.search(r"^ *\d+ +(200|1600) +(\d|inf)", said, re.MULTILINE), said


def test_integrity_workload_finds_the_device_sound(hosts: SoftwareHosts, integrity: str) -> None:
    for said in hosts.pair([integrity, "-n", "2000", "-w", "60"]):
        verdict = workload.judge(said.splitlines())
        assert verdict.ok, said
        assert verdict.operations >= 2000


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("flip_byte", "is corrupted"),
        # What is repeated may be an atomic: whoever finds its sum changed says so first.
        ("repeat_send", r"duplicated|twice|found a sum of|the (shared )?sum of all FETCH_ADDs is"),
        ("drop_completion", "is missing"),
        ("lose_receive", "is missing"),
    ],
)
def test_integrity_workload_finds_a_planted_fault(
    hosts: SoftwareHosts, integrity: str, fault: str, named: str
) -> None:
    for host in HOSTS:
        hosts.control.set(host, fault, 500)
    with pytest.raises(AssertionError) as failure:
        hosts.pair([integrity, "-n", "20000", "-w", "20"])
    for host in HOSTS:
        hosts.control.set(host, fault, 0)
    assert re.search(named, str(failure.value)), failure.value


def test_pyverbs_is_served(hosts: SoftwareHosts) -> None:
    script = (
        "from pyverbs.device import Context, get_device_list\n"
        "from pyverbs.pd import PD\nfrom pyverbs.mr import MR\nfrom pyverbs.cq import CQ\nimport pyverbs.enums as e\n"
        "with Context(name=get_device_list()[0].name.decode()) as context:\n"
        "    with PD(context) as pd, MR(pd, 4096, e.IBV_ACCESS_LOCAL_WRITE) as mr, CQ(context, 8) as cq:\n"
        "        mr.write('hello', 5)\n"
        "        print(context.query_device().max_qp, context.query_gid(1, 1), mr.read(5, 0))\n"
    )
    code, said = hosts.run("one", "/usr/bin/python3", "-c", script)
    assert (code, said.split()[-1]) == (0, "b'hello'"), said
    assert "0a4e:0001" in said


def test_to_criu_a_process_holds_a_device_node_and_nothing_that_leads_outside(
    held: subprocess.Popen[str],
) -> None:
    folder = Path(f"/proc/{held.pid}/fd")
    links = {str(fd.readlink()) for fd in folder.iterdir() if int(fd.name) > 2}
    assert links == {"/dev/infiniband/uverbs0", "anon_inode:[eventfd]"}
    maps = Path(f"/proc/{held.pid}/maps").read_text()
    shared = {line.split(maxsplit=5)[5] for line in maps.splitlines() if line.split()[1].endswith("s")}
    assert shared == {"/memfd:rdma-device (deleted)"}


def test_objects_end_with_their_process(hosts: SoftwareHosts, held: subprocess.Popen[str]) -> None:
    assert hosts.control.count("one", "qps") == 1
    held.kill()
    hosts.wait_for_count("one", "qps", 0)
    assert hosts.control.count("one", "mrs") == 0


def test_objects_end_when_another_program_takes_the_process(
    hosts: SoftwareHosts, held: subprocess.Popen[str]
) -> None:
    assert held.stdin is not None
    held.stdin.write("exec\n")
    held.stdin.flush()
    hosts.wait_for_count("one", "qps", 0, held)


@pytest.mark.parametrize("restarted", [False, True])
def test_call_fails_when_the_daemon_was_killed(
    hosts: SoftwareHosts, held: subprocess.Popen[str], restarted: bool
) -> None:
    """It would wait for ever for the answer of a daemon that could end nothing in order."""
    hosts.kill_daemon()
    try:
        if restarted:
            hosts.start_daemon()
        said, _ = held.communicate("more\n", timeout=30)
        assert said == "Input/output error\n"
    finally:
        if not restarted:
            hosts.start_daemon()
    assert hosts.control.count("one", "qps") == 0


def test_only_who_has_the_node_opens_the_device(hosts: SoftwareHosts, holder: Path) -> None:
    code, said = hosts.run("one", "sh", "-c", f"rm /dev/infiniband/uverbs0; {holder}")
    assert (code, "No such file or directory" in said) == (1, True), said
    code, said = hosts.run(
        "one", "sh", "-c", f"rm /dev/infiniband/uverbs0; mknod /dev/infiniband/uverbs0 c 1 3; {holder}"
    )
    assert (code, "Operation not permitted" in said) == (1, True), said


@pytest.mark.parametrize(
    ("verb", "error", "said_of_it"),
    [
        ("create_qp", 12, "Couldn't create QP"),
        ("reg_mr", 12, "Couldn't register MR"),
        ("post_recv", 22, "Couldn't post receive"),
    ],
)
def test_call_fails_on_request(hosts: SoftwareHosts, verb: str, error: int, said_of_it: str) -> None:
    hosts.control.ask("fault", "one", verb, 1, error, 0)
    code, said = hosts.run("one", "ibv_rc_pingpong", "-g", "1")
    assert code != 0
    assert said_of_it in said


def test_call_takes_its_time_or_never_ends_on_request(hosts: SoftwareHosts, holder: Path) -> None:
    hosts.control.ask("fault", "one", "create_qp", 1, 0, "never")
    with hosts.start("one", holder) as process:
        hosts.wait_for_count("one", "mrs", 1, process)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.kill()
    hosts.wait_for_count("one", "mrs", 0)


def test_only_memory_that_is_there_is_registered(hosts: SoftwareHosts, holder: Path) -> None:
    """Whole, as the process may use it: EFAULT is printed as 1."""
    assert hosts.run("one", holder, "memory") == (0, "0 1 1 0 1 ")


def test_limits_differ_from_host_to_host(hosts: SoftwareHosts) -> None:
    hosts.control.set("two", "max_srq", 0)
    code, said = hosts.run("two", "ibv_srq_pingpong", "-g", "1")
    hosts.control.set("two", "max_srq", 100)
    assert code != 0
    assert "Couldn't create SRQ" in said
    assert "max_srq:" in hosts.run("one", "ibv_devinfo", "-v")[1]


def test_events_of_the_port_are_heard(hosts: SoftwareHosts) -> None:
    with hosts.start("one", "stdbuf", "-oL", "ibv_asyncwatch") as watch:
        try:
            assert watch.stdout is not None
            assert "rxe0" in watch.stdout.readline()
            hosts.control.ask("port", "one", "down")
            hosts.control.ask("port", "one", "up")
            assert "PORT_ERR (10), port 1" in watch.stdout.readline()
            assert "PORT_ACTIVE (9), port 1" in watch.stdout.readline()
        finally:
            watch.kill()


def test_daemon_refuses_what_it_does_not_know(hosts: SoftwareHosts) -> None:
    from migrrdma_lab.errors import RackError

    for words, reason in {
        ("nonsense",): "no such command",
        ("get", "three", "mtu"): "no such host",
        ("set", "one", "nonsense", 1): "No such file or directory",
        ("gid", "one", 0, "nonsense"): "Invalid argument",
        ("port", "one"): "wrong number of words",
    }.items():
        with pytest.raises(RackError, match=reason):
            hosts.control.ask(*words)


def _queue_pairs(hosts: SoftwareHosts, host: str) -> list[dict[str, object]]:
    """What the program ``rdma`` of that host shows."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        connection.connect(str(hosts.resources(host)))
        assert connection.recv(10) == b"ok\n"
    found: list[dict[str, object]] = json.loads(Path(f"{hosts.resources(host)}.json").read_text())
    return found


def test_the_hosts_root_learns_whose_the_queue_pairs_are(hosts: SoftwareHosts) -> None:
    """In the words of `rdma -j resource show qp`; each host those of its own processes."""
    assert _queue_pairs(hosts, "one") == []
    with hosts.start("one", "stdbuf", "-oL", "ibv_rc_pingpong", "-g", "1", "-n", "1") as server:
        try:
            assert server.stdout is not None
            assert "local address" in server.stdout.readline()
            [shown] = _queue_pairs(hosts, "one")
            assert (
                shown.items()
                >= {"ifname": "rxe0", "port": 1, "type": "RC", "state": "INIT", "pid": server.pid}.items()
            )
            assert shown["comm"] == "ibv_rc_pingpong"
            assert "rqpn" not in shown
            assert _queue_pairs(hosts, "two") == []
            assert stat.S_IMODE(hosts.resources("one").stat().st_mode) == 0o600
        finally:
            server.kill()
    assert _queue_pairs(hosts, "one") == []
