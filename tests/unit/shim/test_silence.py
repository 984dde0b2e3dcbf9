"""Only the container that is to be killed is cut off, and no process that has its first one's number since."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from migrrdma_runtime.shim import processes, silence

ME = os.getpid()
STARTED = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
"""In clock ticks since the boot, as proc(5) has it."""


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("state.json", {"init_process_pid": ME, "init_process_start": STARTED}),  # runc's
        ("status", {"pid": ME, "process-start-time": STARTED}),  # crun's
        ("status", {"pid": ME}),  # of a crun that does not note it
    ],
)
def test_the_first_process_is_found(tmp_path: Path, name: str, state: dict[str, int]) -> None:
    (tmp_path / name).write_text(json.dumps(state))
    assert processes.first_process(str(tmp_path)) == ME


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("state.json", {"init_process_pid": ME, "init_process_start": STARTED - 100}),
        ("status", {"pid": ME, "process-start-time": STARTED - 100}),
        ("state.json", {"init_process_pid": 1 << 22, "init_process_start": 1}),
    ],
)
def test_another_one_that_has_its_number_since_is_not_taken_for_it(
    tmp_path: Path, name: str, state: dict[str, int]
) -> None:
    """It may be of another container: the links of that one's network would go down, and stay so."""
    (tmp_path / name).write_text(json.dumps(state))
    assert processes.first_process(str(tmp_path)) == 0


@pytest.mark.parametrize(
    ("others", "shared"),
    [
        (["0::/docker/c1"], False),
        (["0::/docker/c1/init.scope"], False),
        (["0::/docker/c1/nested"], False),
        ([], False),  # ended meanwhile
        (["0::/docker/c12"], True),
        (["0::/docker"], True),
    ],
)
def test_a_network_in_which_others_are_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, others: list[str], shared: bool
) -> None:
    """In a pod they go on when this one is killed, and nobody takes the links up for them."""
    child = subprocess.Popen(["sleep", "60"])  # in the network of this process
    network = os.open("/proc/self/ns/net", os.O_RDONLY)
    (tmp_path / "state.json").write_text('{"cgroup_paths": {"": "/sys/fs/cgroup/docker/c1"}}')
    first = ["0::/docker/c1/init.scope"]  # where systemd goes
    monkeypatch.setattr(processes, "cgroups", lambda pid: first if pid == ME else others)
    try:
        assert silence._is_shared(network, str(tmp_path), ME) == shared
    finally:
        os.close(network)
        child.kill()
        child.wait()
