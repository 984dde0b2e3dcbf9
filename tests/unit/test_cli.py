"""The command line as a whole: help, exit codes, and one line of error whatever happens."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from migrrdma_runtime import __version__, cli
from migrrdma_runtime.base.errors import InstallError
from migrrdma_runtime.commands.options import require_root

MIGRRDMA = [sys.executable, "-m", "migrrdma_runtime"]
OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"


def _leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that is no group, with the words it is called by."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, one in command.commands.items():
        yield from _leaves(one, (*path, name))


COMMANDS = dict(_leaves(typer.main.get_command(cli.app)))


def migrrdma(*arguments: str, cwd: Path = Path("/"), **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MIGRRDMA, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
    )


def test_version() -> None:
    assert migrrdma("--version").stdout == f"migrrdma {__version__}\n"


@pytest.mark.parametrize("kind", [InstallError, OSError])
def test_an_error_is_one_line_whatever_is_named_in_it(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file in a checkpoint is called what its maker likes."""

    def fail(**_more: object) -> None:
        raise kind("/x/\x1b[2J\nmigrrdma: all is well is a FIFO")

    monkeypatch.setattr(cli, "app", fail)
    assert cli._run() == 1
    assert capsys.readouterr().err == r"migrrdma: error: /x/\x1b[2J\nmigrrdma: all is well is a FIFO" + "\n"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["install", "--dry-run"]], ids=" ".join)
def test_what_is_heavy_is_imported_where_it_is_used(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "migrrdma_runtime", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd="/",
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    heavy = {
        "asyncio",
        "cryptography",
        "docker",
        "grpc",
        "jsonschema",
        "requests",
        "rich",
        "sqlite3",
        "urllib3",
    }
    assert imported & heavy == set()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_explains_itself_with_examples(command: tuple[str, ...], option: str) -> None:
    done = migrrdma(*command, option)
    assert done.returncode == 0
    example = f"migrrdma {' '.join(command)}"
    after = re.split(r"^ *Examples?:$", done.stdout, flags=re.MULTILINE)[1]
    # The examples keep their lines, whatever the version of typer makes of paragraphs.
    assert any(example in line for line in after.splitlines()), done.stdout
    assert all(line.count("migrrdma " + command[0]) <= 1 for line in after.splitlines())


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_that_prints_data_does_so_for_programs(command: tuple[str, ...]) -> None:
    options = {option for parameter in COMMANDS[command].params for option in parameter.opts}
    assert ("--json" in options) is (command != ("agent", "run"))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_in_the_manual(command: tuple[str, ...]) -> None:
    assert f"migrrdma {' '.join(command)}" in OPERATIONS.read_text()


def test_every_exit_code_is_in_the_manual() -> None:
    rows = re.findall(r"^\| (\d+|128 \+ N) \|", OPERATIONS.read_text(), re.MULTILINE)
    assert rows == ["0", "1", "2", "78", "128 + N"]


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["check", "--nonsense"], ["checkpoint", "import"], ["checkpoint", "nonsense"]]
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    done = migrrdma(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_an_error_is_one_line_and_1(tmp_path: Path) -> None:
    broken = tmp_path / "daemon.json"
    broken.write_text('{"debug": true,\n}')
    done = migrrdma("install", "--dry-run", "--docker-config", str(broken))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"migrrdma: error: {broken}: line ")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed_pipe:
        done = subprocess.run(
            [*MIGRRDMA, "check"],
            stdout=closed_pipe,
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
            cwd="/",
        )
    assert done.stderr == b""
    assert done.returncode != 0


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)
def test_a_signal_ends_it_without_a_trace(number: signal.Signals, tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    criu = tmp_path / "criu"
    criu.write_text(f"#!/bin/sh\necho > {started}\nexec sleep 60\n")
    criu.chmod(0o755)
    with subprocess.Popen(
        [*MIGRRDMA, "check"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd="/",
    ) as process:
        started.read_text()  # returns when criu has begun
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors == b""


def test_only_root_may_change_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InstallError, match="migrrdma install changes the host and needs root"):
        require_root("migrrdma install")


def test_completion_is_offered_for_the_usual_shells() -> None:
    done = migrrdma("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "complete" in done.stdout
    assert "migrrdma" in done.stdout


def test_a_dry_run_changes_nothing_and_shows_the_diff(tmp_path: Path) -> None:
    config = tmp_path / "daemon.json"
    config.write_text("{}\n")
    done = migrrdma("install", "--dry-run", "--docker-config", str(config))
    assert done.returncode == 0, done.stderr
    assert '+    "migrrdma": {' in done.stdout.splitlines()
    assert config.read_text() == "{}\n"


def test_a_relative_path_is_relative_to_where_one_is(tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text('{"debug": true,\n}')
    done = migrrdma("install", "--dry-run", "--docker-config", "daemon.json", cwd=tmp_path)
    assert f"{tmp_path}/daemon.json: line " in done.stderr
