"""A container goes on when the CRIU that was dumping it has been killed, with the connections that it had."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrrdma_runtime.shim import let_go

_CONNECTED = """
import socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
listening = socket.create_server(("127.0.0.1", 0))
one = socket.create_connection(listening.getsockname())
other, _ = listening.accept()
one.setsockopt(socket.IPPROTO_TCP, 19, 1)  # as CRIU leaves it in the middle of a dump: TCP_REPAIR
print("held", flush=True)
sys.stdin.readline()
other.sendall(b"word")
try:
    print(one.recv(4).decode())
except OSError as error:
    print(error.strerror)
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in a network of its own, of which runc says in ``tmp_path`` that it is a container's first."""
    process = subprocess.Popen(
        ["unshare", "--net", "python3", "-c", _CONNECTED],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    started = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    (tmp_path / "one").mkdir()
    state = {"init_process_pid": process.pid, "init_process_start": int(started)}
    (tmp_path / "one" / "state.json").write_text(json.dumps(state))
    yield process
    process.kill()
    process.wait()


def test_a_connection_that_a_killed_criu_held_can_be_read_again(
    held: subprocess.Popen[str], tmp_path: Path
) -> None:
    let_go.let_go(str(tmp_path / "one"), [])
    assert held.communicate("go on\n", timeout=20)[0] == "word\n"


def test_without_that_it_cannot(held: subprocess.Popen[str]) -> None:
    """The kernel is what the module says it is."""
    assert held.communicate("go on\n", timeout=20)[0] == "Operation not permitted\n"


def test_only_its_own_tables_are_deleted_and_all_at_once(
    held: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may have made any number of tables, of which each would be a program to start."""
    ours = ["CRIU-77", "CRIU-0d2f3c1a-8a8f-4d2c-9f10-0123456789ab"]  # by CRIU 3.17 and by 4.1
    theirs = ["CRIU", "CRIU-", "CRIU-mine", "CRIU-7x", "CRIUS-7", "filter"]
    called = tmp_path / "called"
    fake = tmp_path / "bin" / "nft"
    fake.parent.mkdir()
    lines = "".join(f"table inet {one}\\n" for one in (*ours, *theirs))
    fake.write_text(
        f'#!/bin/sh\necho "$@" >>{called}\n'
        f"case $1 in list) printf '{lines}';; *) readlink /proc/self/ns/net >>{called}; cat >>{called};; esac\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    network = Path(f"/proc/{held.pid}/ns/net").readlink()
    let_go.let_go(str(tmp_path / "one"), [])
    deleted = [f"{word} table inet {one}" for one in ours for word in ("add", "delete")]
    assert called.read_text().splitlines() == ["list tables inet", "--file -", str(network), *deleted]
    assert held.communicate("go on\n", timeout=20)[0] == "word\n"


def test_all_of_it_has_one_deadline(
    held: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The programs are killed when it has passed, and those that are left are not begun."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("iptables-restore", "ip6tables-restore", "nft"):
        (folder / name).write_text(f"#!/bin/sh\necho {name} >>{tmp_path}/called\nexec sleep 60\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(let_go, "_SECONDS", 1)
    let_go.let_go(str(tmp_path / "one"), [])
    assert (tmp_path / "called").read_text().split() == ["iptables-restore"]
    assert held.communicate("go on\n", timeout=20)[0] == "word\n"
