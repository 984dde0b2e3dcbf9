"""The agent as the process that systemd runs."""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from free_port import free_port

from migrrdma_runtime.agent import process
from migrrdma_runtime.agent.peers import certificates
from migrrdma_runtime.base import paths
from migrrdma_runtime.host.install import payload
from migrrdma_runtime.wire import runtime_client
from migrrdma_runtime.wire.guest_messages import WIRE

PATIENT_S = 120
RUN = [sys.executable, "-P", "-m", "migrrdma_runtime", "agent", "run"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What it takes to run an agent of this test's own."""
    certificates.make_ca(tmp_path / "ca", "test")
    certificates.issue(tmp_path / "ca", "me", ["127.0.0.2"], tmp_path / "tls")
    port = free_port()
    (tmp_path / "config.toml").write_text(f'run_dir = "{tmp_path}/run"\nguest_dir = "{tmp_path}/guest"\n')
    tls = "\n".join(
        f'{key} = "{tmp_path}/tls/{name}"'
        for key, name in (("ca", "ca.crt"), ("certificate", "agent.crt"), ("key", "agent.key"))
    )
    (tmp_path / "agent.toml").write_text(f'port = {port}\nstate_dir = "{tmp_path}/state"\n[tls]\n{tls}\n')
    return {
        **os.environ,
        "MIGRRDMA_CONFIG": str(tmp_path / "config.toml"),
        "MIGRRDMA_AGENT_CONFIG": str(tmp_path / "agent.toml"),
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
    }


@contextmanager
def running(
    tmp_path: Path, environment: dict[str, str], command: Sequence[str] = RUN
) -> Iterator[subprocess.Popen[str]]:
    """An agent, from the moment on that it tells systemd it is ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.settimeout(PATIENT_S)
        Path(environment["NOTIFY_SOCKET"]).unlink(missing_ok=True)
        notified.bind(environment["NOTIFY_SOCKET"])
        started = subprocess.Popen(
            command,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        try:
            assert notified.recv(100) == b"READY=1"
            yield started
        finally:
            started.kill()
            started.communicate()


def run_to_its_end(tmp_path: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """``migrrdma agent run`` that cannot run."""
    return subprocess.run(
        RUN,
        env={**environment, "NOTIFY_SOCKET": ""},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=PATIENT_S,
    )


def connect_guest(tmp_path: Path) -> socket.socket:
    guest = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    guest.settimeout(PATIENT_S)
    guest.connect(str(tmp_path / "run/agent/guest.sock"))
    body = {"token": 0xABC, "pid": 1, "state": 1, "contexts": 1, "build_id": b"\1" * 20}
    guest.send(WIRE.pack("HELLO", body))
    assert WIRE.unpack(guest.recv(1000)).kind == "WELCOME"
    return guest


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)  # another process's state


def test_it_says_when_it_is_ready_and_ends_in_order(tmp_path: Path, environment: dict[str, str]) -> None:
    with running(tmp_path, environment) as agent:
        agent.send_signal(signal.SIGTERM)
        _, log = agent.communicate(timeout=PATIENT_S)
    assert agent.returncode == 0, log
    assert "INFO agent me listens on 127.0.0.2" in log


def test_a_killed_agents_place_is_taken_by_the_next(tmp_path: Path, environment: dict[str, str]) -> None:
    with running(tmp_path, environment) as agent:
        guest = connect_guest(tmp_path)
        agent.kill()
        agent.wait()
        assert guest.recv(1000) == b""
        guest.close()
    with running(tmp_path, environment), connect_guest(tmp_path):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "migrrdma_runtime", "status", "--json"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        [shown] = json.loads(done.stdout)["guests"]
        assert (shown["pid"], shown["process"]) == (os.getpid(), f"{0xABC:016x}")


def test_a_second_agent_does_not_take_the_firsts_place(tmp_path: Path, environment: dict[str, str]) -> None:
    with running(tmp_path, environment) as first, connect_guest(tmp_path) as guest:
        done = run_to_its_end(tmp_path, environment)
        assert done.returncode == 1
        assert f"there is one agent on this host already, process {first.pid}" in done.stderr
        assert done.stderr.count("\n") == 1
        # And the first one is still there, with its guests.
        with runtime_client.connect(str(tmp_path / "run")) as agent:
            assert agent.status()["agent"]["name"] == "me"
            assert len(agent.status()["guests"]) == 1
        guest.setblocking(False)
        with pytest.raises(BlockingIOError):
            guest.recv(1)


def test_an_address_that_somebody_else_has_is_named(tmp_path: Path, environment: dict[str, str]) -> None:
    port = int((tmp_path / "agent.toml").read_text().split()[2])
    with socket.create_server(("127.0.0.2", port)):
        done = run_to_its_end(tmp_path, environment)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.2:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_certificate_it_says_how_to_get_one(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "tls/agent.crt").unlink()
    done = run_to_its_end(tmp_path, environment)
    # The unit does not have it started again: nothing would be different.
    assert done.returncode == process.NOT_CONFIGURED
    assert done.stderr.count("\n") == 1
    assert "agent.crt: No such file or directory; `migrrdma agent ca issue` makes" in done.stderr


def test_a_mistake_in_the_configuration_is_not_tried_again(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    with (tmp_path / "agent.toml").open("a") as file:
        file.write("[deadlines]\ndrian = 3\n")
    done = run_to_its_end(tmp_path, environment)
    assert done.returncode == process.NOT_CONFIGURED
    assert done.stderr.count("\n") == 1
    assert "'drian' was unexpected" in done.stderr


def test_the_sockets_need_nothing_heavy() -> None:
    script = "import sys\nfrom migrrdma_runtime.agent import process\nprint(*sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True, cwd="/"
    )
    loaded = set(done.stdout.split())
    assert "migrrdma_runtime.agent.local.guests" in loaded
    assert loaded & {"cryptography", "grpc", "jsonschema", "sqlite3", "ssl", "typer"} <= {"ssl"}  # asyncio's


# --- the unit ---------------------------------------------------------------------------------------------


def _unit_file() -> bytes:
    units = {one.path: one.content for one in payload.load(sys.executable).units}
    return units[paths.AGENT_UNIT]


def unit() -> configparser.RawConfigParser:
    """The unit as it is installed."""
    parsed = configparser.RawConfigParser(strict=False)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(_unit_file().decode())
    return parsed


def test_what_systemd_starts_is_the_agent(tmp_path: Path, environment: dict[str, str]) -> None:
    command = shlex.split(unit()["Service"]["ExecStart"])
    with running(tmp_path, environment, command), connect_guest(tmp_path):
        pass


def test_a_killed_agent_is_back_soon_and_a_broken_one_is_given_up() -> None:
    service, limits = unit()["Service"], unit()["Unit"]
    assert service["Restart"] == "always"
    assert int(service["RestartSec"]) <= 1
    assert int(service["RestartPreventExitStatus"]) == process.NOT_CONFIGURED
    # Even one that takes 20 s to fail, as in emulation, does so no more often than that.
    assert int(limits["StartLimitBurst"]) * (20 + 1) < int(limits["StartLimitIntervalSec"])


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    file = tmp_path / "migrrdma-agent.service"
    file.write_bytes(_unit_file())
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_service_manager_hears_from_an_agent_that_works_and_not_from_one_that_hangs(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """As ``WatchdogSec=`` of the unit asks; then it ends the one and starts another."""
    told: list[str] = []
    environment["WATCHDOG_USEC"] = "300000"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.settimeout(PATIENT_S)
        notified.bind(environment["NOTIFY_SOCKET"])
        with subprocess.Popen(RUN, env=environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as agent:
            try:
                while told.count("WATCHDOG=1") < 3:
                    told.append(notified.recv(100).decode())
                agent.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, agent.pid, os.WSTOPPED | os.WNOWAIT)
                notified.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        notified.recv(100)  # what it had said before
                notified.settimeout(1)
                with pytest.raises(TimeoutError):
                    notified.recv(100)
            finally:
                agent.kill()
    assert told[0] == "READY=1"


def test_the_unit_has_a_watchdog() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(Path(process.__file__).with_name("migrrdma-agent.service"))
    assert unit["Service"]["Type"] == "notify"
    assert int(unit["Service"]["WatchdogSec"]) >= 30, "a slow disk must not look like a hang"


def test_nobody_else_can_lock_the_agent_out(tmp_path: Path) -> None:
    """Who may open the file may lock it, with no right to write, and the agent would take that for another agent."""
    lock = tmp_path / "agent.lock"
    lock.touch()
    lock.chmod(0o644)  # by one that was run by hand, with the usual umask
    with process.alone(tmp_path, "agent.lock", "agent"):
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
