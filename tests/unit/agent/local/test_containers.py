"""Which container a process is in, and which processes hold devices."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

from migrrdma_runtime.agent.local import containers as module
from migrrdma_runtime.agent.local import same_file
from migrrdma_runtime.agent.local.containers import Containers, Process
from migrrdma_runtime.agent.local.recorded import Recorded


def make_process(proc: Path, pid: int, cgroup: str, comm: str = "app", files: tuple[str, ...] = ()) -> None:
    (proc / str(pid) / "fd").mkdir(parents=True)
    (proc / str(pid) / "cgroup").write_text(cgroup)
    (proc / str(pid) / "comm").write_text(comm + "\n")
    (proc / str(pid) / "stat").write_text(f"{pid} ({comm}) S 1 " + " ".join(str(n) for n in range(5, 53)))
    for number, file in enumerate(files):
        (proc / str(pid) / "fd" / str(number)).symlink_to(file)


def _holders(containers: Containers, container: str) -> list[Process]:
    return asyncio.run(containers.holders(container))


@pytest.fixture
def containers(tmp_path: Path) -> Containers:
    proc, run = tmp_path / "proc", tmp_path / "run"
    for container, pid in (("abc", 100), ("abcdef", 200), ("v1", 300)):
        (run / "containers" / container).mkdir(parents=True)
        (run / "containers" / container / "state.json").write_text(json.dumps({"pid": pid}))
    (run / "containers" / "half").mkdir()
    (proc / "sys/kernel/random").mkdir(parents=True)
    (proc / "sys/kernel/random/boot_id").write_text("a boot\n")
    (run / "containers" / "gone").mkdir()
    (run / "containers" / "gone" / "state.json").write_text('{"pid": 999}')
    scope = "0::/system.slice/docker-{}.scope\n"
    make_process(proc, 100, scope.format("abc"))
    make_process(proc, 101, scope.format("abc"), "ib_send_bw", ("/dev/null", "/dev/zero"))
    make_process(proc, 102, "0::/system.slice/docker-abc.scope/nested\n")
    make_process(proc, 200, scope.format("abcdef"), files=("/dev/full",))
    make_process(proc, 300, "12:devices:/docker/v1\n1:name=systemd:/docker/v1\n0::/\n")
    make_process(proc, 400, "0::/user.slice\n", "a) b (c", ("/dev/zero",))
    make_process(proc, 1, "0::/\n")
    # Their nodes have other names here than the devices: what counts is the number.
    return Containers(run, proc, make_verbs(tmp_path / "verbs", "/dev/zero", "/dev/full"))


def make_verbs(folder: Path, *nodes: str) -> Path:
    """``/sys/class/infiniband_verbs`` with a device for each of these nodes."""
    for number, node in enumerate(nodes):
        status = Path(node).stat()
        (folder / f"uverbs{number}").mkdir(parents=True)
        text = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        (folder / f"uverbs{number}" / "dev").write_text(text + "\n")
    (folder / "abi_version").write_text("6\n")
    return folder


@pytest.mark.parametrize(
    ("pid", "container"),
    [(100, "abc"), (101, "abc"), (102, "abc"), (200, "abcdef"), (300, "v1"), (400, ""), (1, ""), (12345, "")],
)
def test_a_process_is_in_the_container_that_its_cgroup_says(
    containers: Containers, pid: int, container: str
) -> None:
    assert containers.container_of(pid) == container


def test_the_holders_of_devices_are_found_by_their_open_files(containers: Containers) -> None:
    """By the devices' numbers, as the plugin does: a node may have any name, and a name lead to anything."""
    assert [str(one) for one in _holders(containers, "abc")] == ["process 101 (ib_send_bw)"]
    assert [one.pid for one in _holders(containers, "abcdef")] == [200]
    assert _holders(containers, "v1") == []


def test_a_file_that_is_only_called_like_a_device_is_none(containers: Containers, tmp_path: Path) -> None:
    (tmp_path / "infiniband").mkdir()
    (tmp_path / "infiniband" / "uverbs0").touch()
    make_process(
        tmp_path / "proc",
        103,
        "0::/system.slice/docker-v1.scope\n",
        files=(f"{tmp_path}/infiniband/uverbs0",),
    )
    assert not containers._device_files(103, containers._devices())


def test_a_commands_name_cannot_write_to_a_terminal(containers: Containers, tmp_path: Path) -> None:
    make_process(tmp_path / "proc", 104, "0::/\n", comm="\x1b[2J\nroot\x9b\u202e")
    assert str(containers.process(104)) == r"process 104 (\x1b[2J\nroot\x9b\u202e)"


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x1c", "\x85", "\u2028"])
def test_what_ends_a_line_elsewhere_ends_none_of_the_kernels(
    containers: Containers, tmp_path: Path, end: str
) -> None:
    """It escapes a line feed in a name, and nothing else."""
    make_process(tmp_path / "proc", 105, f"0::/docker/evil/x{end}0::/system.slice/docker-abc.scope\n")
    status = f"Name:\tx{end}Tgid:\tmore\nState:\tS (sleeping)\nTgid:\t105\n"
    (tmp_path / "proc/105/status").write_bytes(status.encode())
    assert containers.container_of(105) == ""
    assert containers.process_of(105) == 105


def test_only_a_containers_own_processes_are_looked_into(
    containers: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host has thousands, each with its open files, and a hundred checkpoints at once look two hundred times."""
    looked_into: list[int] = []

    def descriptors(proc: str, pid: int) -> dict[int, str]:
        looked_into.append(pid)
        return same_file.descriptors(proc, pid)

    monkeypatch.setattr(module, "descriptors", descriptors)
    assert [one.pid for one in _holders(containers, "abc")] == [101]
    assert sorted(looked_into) == [100, 101, 102]


def test_a_hundred_checkpoints_at_once_read_each_process_of_the_host_no_oftener_than_one(
    containers: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not in the agent's loop, which would be silent meanwhile to everybody else."""
    where: list[threading.Thread] = []
    read = Recorded._cgroup

    def cgroup(self: Recorded, pid: int) -> str:
        where.append(threading.current_thread())
        return read(self, pid)

    monkeypatch.setattr(Recorded, "_cgroup", cgroup)

    async def at_once(count: int) -> int:
        where.clear()
        found = await asyncio.gather(*(containers.holders("abc") for _ in range(count)))
        assert {one.pid for each in found for one in each} == {101}
        return len(where)

    assert asyncio.run(at_once(100)) == asyncio.run(at_once(1))
    assert threading.main_thread() not in where


def test_a_process_is_told_from_a_later_one_of_its_number(containers: Containers) -> None:
    assert containers.started(400) == "a boot/22"
    assert containers.started(12345) == ""


def test_a_process_that_nobody_has_reaped_has_ended(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "60"])
    containers = Containers(tmp_path)
    process = containers.identify(child.pid)
    assert containers.is_alive(process)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    assert not containers.is_alive(process)
    child.wait()


def test_a_child_that_has_only_inherited_a_device_is_told_from_one_that_has_opened_it(
    tmp_path: Path,
) -> None:
    device, script = Path("/dev/zero"), "exec 9<$1; echo; read line"
    containers = Containers(tmp_path, verbs=make_verbs(tmp_path / "verbs", "/dev/zero"))
    with device.open() as file:

        def run(*command: str | Path, fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, pass_fds=fds, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

        inherits = run("cat", fds=(file.fileno(),))
        opens = run("sh", "-c", script, "sh", device)
        both = run("sh", "-c", script, "sh", device, fds=(file.fileno(),))
        try:
            for one in (opens, both):
                assert one.stdout is not None
                one.stdout.readline()  # it has opened the file
            assert containers.only_inherits(inherits.pid, [opens.pid, os.getpid()])
            assert not containers.only_inherits(inherits.pid, [opens.pid])
            assert not containers.only_inherits(inherits.pid, [])
            assert not containers.only_inherits(opens.pid, [os.getpid(), inherits.pid])
            assert not containers.only_inherits(both.pid, [os.getpid()])
        finally:
            for one in (inherits, opens, both):
                one.communicate()


@pytest.mark.parametrize(("opened", "is_told"), [(600, True), (1100, False)])
def test_a_child_of_a_process_with_many_devices_open_does_not_keep_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: int, is_told: bool
) -> None:
    """A process may open its device a million times; with each compared with each, ten thousand took ten minutes."""
    containers = Containers(tmp_path, verbs=make_verbs(tmp_path / "verbs", "/dev/zero"))
    files = [os.open("/dev/zero", os.O_RDONLY) for _ in range(opened)]
    child = subprocess.Popen(["sleep", "60"], pass_fds=files)
    compare, compared = same_file._compare, 0

    def counted(one: same_file.End, other: same_file.End) -> int:
        nonlocal compared
        compared += 1
        return compare(one, other)

    monkeypatch.setattr(same_file, "_compare", counted)
    try:
        assert containers.only_inherits(child.pid, [os.getpid()]) == is_told
        assert compared <= (50 * opened if is_told else 0)
    finally:
        for file in files:
            os.close(file)
        child.kill()
        child.wait()
