"""Everything one can see of a call is what the low-level runtime itself would have shown."""

import array
import json
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from bundles import Bundle
from installed import BOTH_WAYS, Installation

pytestmark = BOTH_WAYS


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--help",
        "--version",
        "frobnicate",
        "--frobnicate create c1",
        "state missing",
        "create",
        "create --help",
        "create --frobnicate --bundle B c1",
        "create --bundle B a/b",
        "create --bundle B ..",
        "run --bundle B --preserve-fds many c1",
        "run --bundle B c1",
        "run --bundle=B -- c1",
        "run c1 --bundle B",
        "run --bundle B c1 c2",
        "exec missing true",
        "exec --process /none missing",
        "kill missing KILL",
        "delete --force missing",
        "checkpoint missing",
        "checkpoint --image-path B/images missing",
        "list",
        "features",
        "--log B/log create --bundle B c1 --pid-file",
        "--log B/log --log-format json state missing",
        "--log-format xml state missing",
    ],
)
def test_exit_code_and_output_are_the_same(
    host: Installation, bundle: Bundle, lowlevel: str, line: str
) -> None:
    bundle.command("echo out; echo err >&2; exit 3")
    words = line.replace("B", str(bundle.path)).split()
    theirs = subprocess.run(
        [lowlevel, *host.options, *words], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    log = bundle.path / "log"
    their_log = log.read_text() if log.exists() else ""
    log.unlink(missing_ok=True)
    ours = host.run(*words, cwd=Path.cwd())
    our_log = log.read_text() if log.exists() else ""

    assert ours.returncode == theirs.returncode
    assert _timeless(ours.stdout.decode()) == _timeless(theirs.stdout.decode())
    assert _timeless(ours.stderr.decode()) == _timeless(theirs.stderr.decode())
    assert _timeless(our_log) == _timeless(their_log)


def _timeless(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)", "TIME", text)


def _start(
    host: Installation, *args: str | Path, fds: tuple[int, ...] = (), **environment: str
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [host.runtime, *host.options, *args],
        env=host.environment | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        pass_fds=fds,
    )


@pytest.mark.parametrize("rdma", [True, False])
def test_preserved_descriptors_reach_the_container_and_no_other(
    host: Installation, bundle: Bundle, rdma: bool
) -> None:
    if rdma:
        bundle.enable_rdma()
    bundle.command("for fd in /proc/self/fd/*; do echo ${fd##*/}; done; echo preserved >&3")
    reading, writing = socket.socketpair()
    with reading, writing:
        # A descriptor's number matters here, and only a shell can choose it.
        call = " ".join(f"'{word}'" for word in (host.runtime, *host.options, "run", "--preserve-fds", "1"))
        script = f"exec 3<&{writing.fileno()}; exec {call} --bundle '{bundle.path}' c1"
        result = subprocess.run(
            ["/bin/bash", "-c", script],
            env=host.environment,
            pass_fds=[writing.fileno()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert reading.recv(100) == b"preserved\n"
    # The shell opens one more to list them.
    assert result.stdout.split()[:4] == ["0", "1", "2", "3"]
    assert len(result.stdout.split()) <= 5


def test_socket_activation_reaches_the_container(host: Installation, bundle: Bundle) -> None:
    bundle.enable_rdma()
    bundle.command("readlink /proc/self/fd/3")
    call = " ".join(
        f"'{word}'" for word in (host.runtime, *host.options, "run", "--bundle", bundle.path, "c1")
    )
    result = subprocess.run(
        ["/bin/bash", "-c", f"exec 3</dev/zero; LISTEN_FDS=1 LISTEN_PID=$$ exec {call}"],
        env=host.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "/dev/zero\n"


@pytest.mark.parametrize("lowlevel", ["runc"], indirect=True)  # crun hands the socket's directory through
def test_ready(host: Installation, bundle: Bundle, tmp_path: Path) -> None:
    """Readiness comes from the container to whoever waits for it.

    The name is in the path of runc's socket, which has no room for a longer one.
    """
    bundle.enable_rdma()
    bundle.command("echo $NOTIFY_SOCKET; sleep 60 >/dev/null")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(60)
        listener.bind(str(tmp_path / "notify"))
        process = _start(host, "run", "--bundle", bundle.path, "c1", NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert process.stdout
        with process.stdout as stdout:
            assert stdout.readline().startswith(b"/run/notify/notify")
        # The shell cannot write to a socket; this is the host's end of the container's.
        (inside,) = (host.root / "containers" / "c1" / "notify").iterdir()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"READY=1", str(inside))
        assert listener.recv(100).startswith(b"READY=1")
        host.run("kill", "c1", "KILL")
        assert process.wait(timeout=60) == 128 + signal.SIGKILL


def test_the_terminal_comes_through_the_console_socket(
    host: Installation, bundle: Bundle, tmp_path: Path
) -> None:
    bundle.enable_rdma()
    bundle.command("test -t 0 && echo a terminal")
    bundle.change(process={"terminal": True})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "console"))
        listener.listen()
        console = f"--console-socket={tmp_path}/console"
        assert host.run("create", "--bundle", bundle.path, console, "c1").returncode == 0
        connection, _ = listener.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_LEN(4))
        (master,) = array.array("i", ancillary[0][2])
        with open(master, "rb", buffering=0) as terminal:  # noqa: PTH123 (a descriptor)
            assert host.run("start", "c1").returncode == 0
            assert terminal.read(100) == b"a terminal\r\n"


def test_the_pid_file_names_the_containers_process(
    host: Installation, bundle: Bundle, tmp_path: Path
) -> None:
    bundle.enable_rdma()
    host.create(bundle.path, "--pid-file", tmp_path / "pid")
    state = json.loads(host.run("state", "c1").stdout)
    assert int((tmp_path / "pid").read_text()) == state["pid"]


# crun may start the container before it is ready to forward signals.
@pytest.mark.parametrize("lowlevel", ["runc"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_reach_the_container(host: Installation, bundle: Bundle, number: signal.Signals) -> None:
    bundle.enable_rdma()
    bundle.command(f"trap 'echo caught; exit 9' {number:d}; sleep 60 >/dev/null & echo ready; wait")
    process = _start(host, "run", "--bundle", bundle.path, "c1")
    assert process.stdout
    with process.stdout as stdout:
        assert stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert stdout.readline() == b"caught\n"
    assert process.wait(timeout=60) == 9
