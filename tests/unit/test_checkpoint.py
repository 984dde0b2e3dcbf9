"""What a user learns when CRIU refuses, and that nothing shows when it does not."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from installed import FakeRuntime, Installation

MakeFake = Callable[[str], FakeRuntime]

_TCP = "Error (criu/sk-inet.c:191): inet: Connected TCP socket, consider using --tcp-established option."
_LOG = f"""\
(00.000012) Version: 4.1.1 (gitid 0)
(00.012345) Warn  (criu/x.c:1): something
(00.020000)    123: {_TCP}
(00.020001) Error (criu/cr-dump.c:1): Dump files (pid: 7) failed with -1
(00.020002) Error (criu/cr-dump.c:1): Dump files (pid: 7) failed with -1
(00.020003) Error (criu/cr-dump.c:2): Dumping FAILED.
"""
_ERRORS = f"{_TCP}; Error (criu/cr-dump.c:1): Dump files (pid: 7) failed with -1; "
_ERRORS += "Error (criu/cr-dump.c:2): Dumping FAILED."


def _failing(name: str, folder: Path) -> str:
    """What runc does when CRIU fails: a log in the working directory, a last word, exit code 1."""
    write = f"mkdir -p {folder}; cat >{folder}/{name} <<'E'\n{_LOG}E\n"
    return f"{write}echo 'criu failed: type DUMP errno 1' >&2; exit 1"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"ociVersion": "1.0.2"}))
    return path


@pytest.mark.parametrize("where", ["--work-path", "--image-path"])
def test_a_failed_checkpoint_says_why_in_the_first_line_of_stderr(
    installation: Installation, fake_runtime: MakeFake, tmp_path: Path, where: str
) -> None:
    """The first line is what containerd shows."""
    folder, log = tmp_path / "work", tmp_path / "log.json"
    fake_runtime(_failing("dump.log", folder))
    result = installation.run("--log", log, "--log-format", "json", "checkpoint", where, folder, "c1")
    expected = f"checkpoint of c1 failed: {_ERRORS} (CRIU's log: {folder}/dump.log)"
    assert result.returncode == 1
    assert result.stderr.decode().splitlines() == [expected, "criu failed: type DUMP errno 1"]
    assert json.loads(log.read_text())["msg"] == expected


def test_a_failed_restore_says_why_in_the_last_error_of_the_log(
    installation: Installation, fake_runtime: MakeFake, tmp_path: Path, bundle: Path
) -> None:
    """The last error is what containerd shows."""
    folder, log = tmp_path / "work", tmp_path / "log.json"
    fake_runtime(
        f"""echo '{{"level":"error","msg":"criu failed","time":"t"}}' >>{log}\n"""
        + _failing("restore.log", folder)
    )
    log_options = ("--log", log, "--log-format", "json")
    result = installation.run(*log_options, "restore", "--work-path", folder, "--bundle", bundle, "c1")
    expected = f"restore of c1 failed: {_ERRORS} (CRIU's log: {folder}/restore.log)"
    assert result.returncode == 1
    assert [json.loads(line)["msg"] for line in log.read_text().splitlines()] == ["criu failed", expected]
    assert result.stderr.decode().splitlines() == ["criu failed: type DUMP errno 1", expected]


def test_without_a_log_the_reason_comes_last_on_the_terminal(
    installation: Installation, fake_runtime: MakeFake, tmp_path: Path
) -> None:
    fake_runtime(_failing("dump.log", tmp_path / "checkpoint"))
    result = installation.run("checkpoint", "c1", cwd=tmp_path)
    first, last = result.stderr.decode().splitlines()
    assert first == "criu failed: type DUMP errno 1"
    assert f'level=error msg="checkpoint of c1 failed: {_TCP}; ' in last


def test_the_log_is_found_where_crius_own_configuration_puts_it(
    installation: Installation, fake_runtime: MakeFake, tmp_path: Path
) -> None:
    criu_config = tmp_path / "criu.conf"
    criu_config.write_text("verbosity 4\nlog-file mine.log\n")
    state = installation.root / "c1" / "state.json"
    state.parent.mkdir()
    state.write_text(json.dumps({"config": {"labels": ["a=b", f"org.criu.config={criu_config}"]}}))
    fake_runtime(_failing("mine.log", tmp_path))
    options = ("--root", installation.root, "--log", "/dev/null")
    result = installation.run(*options, "checkpoint", "--work-path", tmp_path, "c1")
    assert f"(CRIU's log: {tmp_path}/mine.log)" in result.stderr.decode().splitlines()[0]


def test_a_failure_that_criu_could_not_log_leads_to_its_configuration(
    installation: Installation, fake_runtime: MakeFake, tmp_path: Path
) -> None:
    """An option that CRIU does not know."""
    log = tmp_path / "log"
    fake_runtime(f"echo 'criu failed: type DUMP errno 56' | tee -a {log} >&2; exit 1")
    result = installation.run("--log", log, "checkpoint", "--work-path", tmp_path, "c1")
    assert result.stderr.decode().splitlines() == [
        f"checkpoint of c1 failed: CRIU gave no reason in {tmp_path}/dump.log; "
        "an unknown option in /etc/criu/runc.conf is one it cannot log",
        "criu failed: type DUMP errno 56",
    ]


def test_an_older_log_of_another_try_is_not_quoted(
    installation: Installation, fake_runtime: MakeFake, tmp_path: Path
) -> None:
    (tmp_path / "dump.log").write_text(_LOG)
    fake_runtime("echo 'container c1 does not exist' >&2; exit 1")
    result = installation.run("--log", "/dev/null", "checkpoint", "--work-path", tmp_path, "c1")
    assert (result.returncode, result.stderr) == (1, b"container c1 does not exist\n")


@pytest.mark.parametrize("command", ["checkpoint", "restore"])
def test_a_success_shows_what_the_runtime_shows_and_no_more(
    installation: Installation, fake_runtime: MakeFake, bundle: Path, command: str
) -> None:
    fake = fake_runtime("echo out; echo err >&2; exec 3>&- ")
    extra = (
        ["--bundle", bundle] if command == "restore" else ["--leave-running", "--pre-dump", "--lazy-pages"]
    )
    arguments = [command, "--image-path", bundle, *extra, "c1"]
    result = installation.run("--log", "/dev/null", *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"out\n", b"err\n")
    assert fake.arguments() == [str(word).encode() for word in ("--log", "/dev/null", *arguments)]


def test_a_detached_container_that_keeps_the_streams_open_is_not_waited_for(
    installation: Installation, fake_runtime: MakeFake, bundle: Path
) -> None:
    fake_runtime("sleep 60 & echo $!")
    process = subprocess.Popen(
        [installation.runtime, "restore", "--detach", "--bundle", bundle, "c1"],
        env=installation.environment,
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    with process.stdout as stdout:
        sleeper = int(stdout.readline())
        try:
            assert process.wait(timeout=30) == 0
        finally:
            subprocess.run(["kill", str(sleeper)], check=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGWINCH])
def test_signals_reach_the_runtime(
    installation: Installation, fake_runtime: MakeFake, bundle: Path, number: signal.Signals
) -> None:
    """A restored container in the foreground is controlled through the runtime's process."""
    fake_runtime(f"sleep 60 >/dev/null & trap 'kill $!; echo caught; exit 9' {number:d}; echo ready; wait")
    process = subprocess.Popen(
        [installation.runtime, "restore", "--bundle", bundle, "c1"],
        env=installation.environment,
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == b"caught\n"
    assert process.returncode == 9


def test_a_runtime_killed_by_a_signal_is_reported_as_that(
    installation: Installation, fake_runtime: MakeFake
) -> None:
    fake_runtime("kill -TERM $$")
    assert installation.run("checkpoint", "c1").returncode == -signal.SIGTERM


def test_who_kills_us_kills_the_runtime(
    installation: Installation, fake_runtime: MakeFake, bundle: Path
) -> None:
    fake_runtime("echo $$; exec sleep 60")
    process = subprocess.Popen(
        [installation.runtime, "restore", "--bundle", bundle, "c1"],
        env=installation.environment,
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    with process.stdout as stdout:
        assert int(stdout.readline()) != process.pid
        process.kill()
        # The pipe closes when the sleeping runtime, its last writer, is gone.
        assert stdout.read() == b""
    process.wait()


@pytest.mark.parametrize(
    ("namespaces", "given", "setting", "added"),
    [
        (["NEWNS", "NEWNET"], [], "", True),
        (["NEWNS"], [], "", False),
        (["NEWNET"], ["--tcp-established"], "", False),
        (["NEWNET"], ["--tcp-established=false"], "", False),
        (["NEWNET"], [], "[criu]\ntcp_established = false", False),
    ],
)
def test_tcp_connections_are_kept_for_a_container_with_its_own_network(
    installation: Installation,
    fake_runtime: MakeFake,
    namespaces: list[str],
    given: list[str],
    setting: str,
    added: bool,
) -> None:
    fake = fake_runtime("")
    installation.configure(setting, runtime=fake.path)
    state = installation.root / "c1" / "state.json"
    state.parent.mkdir()
    state.write_text(json.dumps({"config": {"namespaces": [{"type": kind} for kind in namespaces]}}))
    assert installation.run("--root", installation.root, "checkpoint", *given, "c1").returncode == 0
    arguments = [word.decode() for word in fake.arguments()]
    expected = ["--tcp-established"] if added else []
    assert arguments == ["--root", str(installation.root), "checkpoint", *expected, *given, "c1"]


def test_a_restore_looks_at_the_bundles_own_network(
    installation: Installation, fake_runtime: MakeFake, bundle: Path
) -> None:
    fake = fake_runtime("")
    spec = {"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "network"}]}}
    (bundle / "config.json").write_text(json.dumps(spec))
    installation.run("restore", "c1", cwd=bundle)
    assert fake.arguments() == [b"restore", b"--tcp-established", b"c1"]


@pytest.mark.parametrize("command", ["checkpoint", "restore"])
def test_descriptors_reach_the_runtime(
    installation: Installation, fake_runtime: MakeFake, bundle: Path, command: str
) -> None:
    fake = fake_runtime("")
    with Path("/dev/full").open("wb") as full:
        subprocess.run(
            [installation.runtime, command, "--status-fd", str(full.fileno()), "c1"],
            cwd=bundle,
            env=installation.environment,
            pass_fds=[full.fileno()],
            check=True,
        )
        assert set(fake.descriptors()) == {0, 1, 2, full.fileno()}
