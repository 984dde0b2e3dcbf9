"""Stock CRIU, with the plugin, dumps and restores processes that hold RDMA devices: bare and in Docker.

No guest library takes part. A stand-in, an empty library of its name, lets the plugin agree; what comes back
is a process with placeholders, which is as far as the plugin goes.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from migrrdma_lab.containers import Container
from migrrdma_lab.errors import NodeCommandError
from migrrdma_lab.shell import Shell
from perftest import perftest

pytestmark = pytest.mark.needs("kernel-rdma")

_PROBES = Path(__file__).parents[1] / "probes"
_HOME = "/root/criu-plugin"
_GUEST = f"{_HOME}/lib/libmigrrdma.so"

_LEFT_OPEN = "/memfd:migrrdma-device (deleted)"
"""What CRIU before 3.19 leaves open of a plugin's."""

Register = Callable[[Container], Container]


@pytest.fixture(scope="module")
def prepared(src: Shell, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Put the probe and the stand-in guest library on the node; the directory with the installed plugin."""
    build = tmp_path_factory.mktemp("probes")
    (build / "lib").mkdir()
    (build / "guest.c").write_text("extern int stand_in; int stand_in = 1;\n")
    flags = ("-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1")
    subprocess.run(["gcc", *flags, "-o", build / "holder", _PROBES / "holder.c", "-libverbs"], check=True)
    subprocess.run(
        ["gcc", *flags, "-shared", "-fPIC", "-Wl,--build-id", "-o", build / "lib" / "libmigrrdma.so",
         build / "guest.c"],
        check=True,
    )  # fmt: skip
    (build / "others").mkdir()
    subprocess.run(
        ["gcc", *flags, "-shared", "-fPIC", f"-I{_PROBES.parents[1] / 'criu_plugin'}",
         "-o", build / "others" / "rude_plugin.so", _PROBES / "rude_plugin.c"],
        check=True,
    )  # fmt: skip
    src.run("rm", "-rf", _HOME)
    src.copy(str(build), f":{_HOME}")
    found = src.sh("ls -d /opt/migrrdma/lib/python3*/site-packages/migrrdma_runtime/_data/criu")
    return found.stdout.strip()


@dataclass
class Holder:
    """The probe ``tests/probes/holder.c``, running on the node without a container."""

    shell: Shell
    plugins: str
    pid: int = 0

    def start(self, *options: str, guest: str = _GUEST, command: str = "./holder out") -> Holder:
        """Start it and wait for its first round."""
        preload = f"LD_PRELOAD={guest} " if guest else ""
        fresh = f"cd {_HOME}; rm -rf out images; mkdir images; : >out"
        start = f"{preload}setsid {command} {shlex.join(options)} </dev/null >/dev/null 2>&1"
        self.pid = int(self.shell.sh(f"{fresh}; {start} & echo $!").stdout)
        if command.startswith("./holder"):
            self.wait_for("^device")
        return self

    def wait_for(self, pattern: str, after: int = 0) -> None:
        """Wait until a line that matches comes after the first ``after`` lines."""
        self.shell.wait_for_line(f"{_HOME}/out", pattern, 30, after=after)

    def goes_on(self) -> None:
        """Its queue pairs are connected as before: rounds go through the device."""
        before = self.lines()
        assert before[-1].startswith("device"), before[-1]
        self.wait_for("^device", after=len(before))
        self.wait_for("^(device|broken)", after=len(before) + 3)
        assert self.lines()[-1].startswith("device")

    def lines(self) -> list[str]:
        """What it has written."""
        return self.shell.run("cat", f"{_HOME}/out").stdout.splitlines()

    def criu(self, action: str, *options: str, plugins: str | None = None) -> str:
        """Run ``criu ACTION`` and return its log; a failure is a `CriuError` with it."""
        libdir = self.plugins if plugins is None else plugins
        command = [
            "criu", action, "-D", f"{_HOME}/images", "-L", libdir, "-v4", "-o", f"{action}.log", *options,
        ]  # fmt: skip
        result = self.shell.run(*command, check=False)
        log = self.shell.run("cat", f"{_HOME}/images/{action}.log").stdout
        if result.returncode:
            raise CriuError(log)
        return log

    def dump(self, *options: str) -> str:
        """``criu dump``."""
        return self.criu("dump", "-t", str(self.pid), *options)

    def restore(self, plugins: str | None = None) -> str:
        """``criu restore``, detached."""
        return self.criu("restore", "-d", plugins=plugins)

    def criu_version(self) -> tuple[int, ...]:
        """As ``criu --version`` says it."""
        version = re.search(r"[\d.]+", self.shell.run("criu", "--version").stdout)
        assert version
        return tuple(map(int, version[0].split(".")))

    def descriptors(self, without: str = "") -> dict[int, str]:
        """Each descriptor and what it leads to, without the numbers that differ from run to run."""
        listing = self.shell.sh(
            f"cd /proc/{self.pid}/fd; for fd in *; do echo $fd $(readlink $fd); done"
        ).stdout
        pairs = (line.split(" ", 1) for line in listing.splitlines())
        return {int(fd): re.sub(r":\[\d+\]", "", target) for fd, target in pairs if target != without}

    def epoll_sets(self) -> dict[int, list[str]]:
        """Descriptors, events and data registered in each epoll set."""
        sets = {}
        for fd, target in self.descriptors().items():
            if target == "anon_inode:[eventpoll]":
                info = self.shell.run("cat", f"/proc/{self.pid}/fdinfo/{fd}").stdout
                sets[fd] = sorted(re.findall(r"tfd: +\d+ events: +\w+ data: +\w+", info))
        return sets

    def mappings(self, of: str) -> list[str]:
        """Address range and protection of each mapping of a file."""
        maps = self.shell.run("cat", f"/proc/{self.pid}/maps").stdout
        return [" ".join(line.split()[:2]) for line in maps.splitlines() if of in line]

    def end(self) -> None:
        """Kill it and its children."""
        if self.pid:
            ended = self.shell.run("pkill", "-KILL", "-g", str(self.pid), check=False)
            assert ended.returncode in (0, 1), ended.stderr  # 1: there is nobody left


class CriuError(Exception):
    """CRIU failed; its log."""


@pytest.fixture
def holder(src: Shell, prepared: str) -> Iterator[Holder]:
    holder = Holder(src, prepared)
    yield holder
    holder.end()


@pytest.mark.parametrize("options", [(), ("fork",), ("nested",)], ids=["plain", "forked", "nested"])
def test_a_process_comes_back_with_everything_in_its_place(holder: Holder, options: tuple[str, ...]) -> None:
    holder.start(*options)
    descriptors, sets, mapped = holder.descriptors(), holder.epoll_sets(), holder.mappings("uverbs0")
    assert mapped
    holder.dump()
    assert holder.lines()[-1].startswith("device")
    holder.restore()
    holder.wait_for("^(placeholder|broken)")
    # It has read and written what stands in the queues' place, sent commands, polled.
    assert holder.lines()[-1].startswith("placeholder"), holder.lines()[-1]
    expected = {
        fd: {"/dev/infiniband/uverbs0": "pipe", "anon_inode:[infinibandevent]": "anon_inode:[eventfd]"}.get(
            target, target
        )
        for fd, target in descriptors.items()
    }
    assert holder.descriptors(without=_LEFT_OPEN if holder.criu_version() < (3, 19) else "") == expected
    assert holder.epoll_sets() == sets
    assert holder.mappings("/memfd:migrrdma-device") == mapped


def test_a_restored_process_can_be_dumped_and_restored_again(holder: Holder) -> None:
    holder.start("fork")
    holder.dump()
    holder.restore()
    holder.wait_for("^placeholder")
    holder.dump()
    holder.restore()
    holder.wait_for("^placeholder", after=len(holder.lines()))


def test_the_source_goes_on_after_a_dump_that_leaves_it_running(holder: Holder) -> None:
    holder.start()
    for _ in range(3):
        holder.dump("--leave-running")
        holder.goes_on()


def test_the_source_goes_on_after_a_dump_that_failed_at_its_very_end(holder: Holder) -> None:
    holder.start()
    holder.shell.sh(
        f"printf '#!/bin/sh\\n[ $CRTOOLS_SCRIPT_ACTION != post-dump ]\\n' >{_HOME}/no; chmod +x {_HOME}/no"
    )
    with pytest.raises(CriuError):
        holder.dump("--action-script", f"{_HOME}/no")
    holder.goes_on()


def test_a_pre_dump_and_the_dump_after_it_make_one_checkpoint(holder: Holder) -> None:
    holder.start()
    holder.shell.run("mkdir", f"{_HOME}/images/before")
    holder.criu("pre-dump", "-t", str(holder.pid), "--track-mem", "-D", f"{_HOME}/images/before",
                "-o", "../pre-dump.log")  # fmt: skip
    holder.goes_on()
    holder.dump("--track-mem", "--prev-images-dir", "before")
    holder.restore()
    holder.wait_for("^placeholder")


def test_a_process_without_the_guest_library_is_refused_by_name_and_goes_on(holder: Holder) -> None:
    holder.start(guest="")
    with pytest.raises(CriuError) as failure:
        holder.dump()
    assert f"process {holder.pid} (holder) holds an RDMA device but runs without libmigrrdma.so" in str(
        failure.value
    )
    holder.goes_on()


def test_the_connection_manager_is_refused_by_descriptor(holder: Holder) -> None:
    holder.start(command="rping -s -a 127.0.0.1")
    holder.shell.run(
        "timeout", "20", "bash", "-c", f"until ls -l /proc/{holder.pid}/fd | grep -q rdma_cm; do :; done"
    )
    with pytest.raises(
        CriuError, match=r"\(rping\): descriptor \d+ is the RDMA connection manager \(rdma_cm\)"
    ):
        holder.dump()


def test_an_unread_event_is_pointed_out(holder: Holder) -> None:
    holder.start("leave-unread")
    assert "an event on descriptor 7 is unread" in holder.dump()
    holder.restore()
    holder.wait_for("^placeholder")


def test_a_plugin_that_answers_for_everything_does_not_come_in_between(holder: Holder) -> None:
    gathered = f"{_HOME}/gathered"
    gather = (
        "import sys; from migrrdma_runtime.criu.plugins import gather; sys.exit(not gather(*sys.argv[1:]))"
    )
    ours = f"{holder.plugins}/migrrdma_plugin.so"
    holder.shell.run("/opt/migrrdma/bin/python", "-c", gather, gathered, ours, f"{_HOME}/others")
    holder.plugins = gathered
    holder.start()
    assert 'Plugin "rude_plugin"' in holder.dump()
    holder.restore()
    holder.wait_for("^(placeholder|broken)")
    assert holder.lines()[-1].startswith("placeholder")


def test_a_restore_without_the_plugin_is_refused_by_its_name(holder: Holder) -> None:
    holder.start()
    holder.dump()
    holder.shell.run("mkdir", "-p", f"{_HOME}/none")
    named = holder.criu_version() >= (4, 1)
    reason = "Missing required plugin: migrrdma_plugin" if named else "Unable to restore 0x"
    with pytest.raises(CriuError, match=reason):
        holder.restore(plugins=f"{_HOME}/none")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [("rm {}", "migrrdma.img is missing"), ("truncate -s -1 {}", "migrrdma.img is damaged")],
    ids=["missing", "cut"],
)
def test_a_restore_with_a_bad_image_is_refused_by_its_name(holder: Holder, damage: str, reason: str) -> None:
    holder.start()
    holder.dump()
    holder.shell.sh(damage.format(f"{_HOME}/images/migrrdma.img"))
    with pytest.raises(CriuError, match=reason):
        holder.restore()


@pytest.fixture
def docker_with_plugin(src: Shell, prepared: str) -> Iterator[None]:
    """Docker's CRIU loads the plugin; perftest's two ends also hold a TCP connection."""
    src.sh(f"mkdir -p /etc/criu; printf 'libdir {prepared}\\ntcp-established\\n' >/etc/criu/runc.conf")
    yield
    src.run("rm", "/etc/criu/runc.conf")


def _container(src: Shell, name: str, *command: str, guest: bool = True) -> Container:
    options = [
        "--device=/dev/infiniband/uverbs0", "--ulimit=memlock=-1", "--network=host",
        f"--volume={_HOME}/holder:/holder:ro", f"--volume={_HOME}/lib:/usr/lib/migrrdma/0:ro",
        *(["--env=LD_PRELOAD=/usr/lib/migrrdma/0/libmigrrdma.so"] if guest else []),
    ]  # fmt: skip
    return Container(src, name, command or ("/holder", "/dev/stdout"), options, runtime="runc")


@pytest.mark.usefixtures("docker_with_plugin")
def test_docker_checkpoints_and_starts_a_container_with_a_device(src: Shell, containers: Register) -> None:
    container = containers(_container(src, "plugin-moves")).run()
    container.wait_for_line("^device 2$")
    container.checkpoint("one")
    assert not container.running()
    container.restore("one")
    container.wait_for_line("^(placeholder|broken)")
    assert container.lines()[-1].startswith("placeholder")


@pytest.mark.usefixtures("docker_with_plugin")
def test_docker_refuses_a_container_without_the_guest_library_and_it_goes_on(
    src: Shell, containers: Register
) -> None:
    container = containers(_container(src, "plugin-refuses", guest=False)).run()
    container.wait_for_line("^device 2$")
    with pytest.raises(NodeCommandError):
        container.checkpoint("one")
    assert container.running()
    container.wait_for_line("^device", after=len(container.lines()))


@pytest.mark.usefixtures("docker_with_plugin")
def test_traffic_between_two_containers_survives_checkpoints_of_either(
    src: Shell, containers: Register
) -> None:
    options = ("-s", "4096", "-t", "8", "-r", "16", "--run_infinitely", "-D", "1")
    bandwidth = ("stdbuf", "-oL", *perftest("ib_send_bw", *options))
    server = containers(_container(src, "plugin-server", *bandwidth)).run()
    src.run("timeout", "60", "bash", "-c", "until ss -ltn | grep -q :18515; do sleep 0.2; done")
    client = containers(_container(src, "plugin-client", *bandwidth, "127.0.0.1")).run()
    client.wait_for_line("^ *4096 ")
    for container in (client, server, client):
        container.checkpoint(f"of-{container.name}-{len(container.lines())}", "--leave-running")
        for end in (client, server):
            assert end.running()
            end.wait_for_line("^ *4096 ", after=len(end.lines()))
    assert "rror" not in "".join(client.lines() + server.lines())
