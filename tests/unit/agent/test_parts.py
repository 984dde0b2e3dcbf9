"""The agent's parts one by one: its records, settings, containers, devices, and the light client."""

from __future__ import annotations

import ipaddress
import json
import socket
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cluster import make_sysfs

from migrrdma_runtime.agent.local.containers import Containers
from migrrdma_runtime.agent.local.devices import Devices, GidEntry, shortfalls
from migrrdma_runtime.agent.peers import agent_config as settings
from migrrdma_runtime.agent.peers.agent_config import Settings
from migrrdma_runtime.agent.roles.states import FIRST, TRANSITIONS, Role, State
from migrrdma_runtime.agent.roles.store import Store
from migrrdma_runtime.base import gids
from migrrdma_runtime.base.errors import (
    AgentError,
    ConfigError,
    ManifestError,
    RefusedError,
    StoreError,
    UnreachableError,
)
from migrrdma_runtime.wire import manifest, runtime_client, tokens

# --- records ---------------------------------------------------------------------------------------------


def test_records_survive_and_keep_their_state(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    record = store.begin("m", Role.SOURCE, {"container": "c"})
    store.move(record, State.DUMPING, timeline=[1])
    store.close()
    again = Store(tmp_path / "state.db")
    found = again.find("m", Role.SOURCE)
    assert found is not None
    assert (found.state, found.data) == (State.DUMPING, {"container": "c", "timeline": [1]})
    again.close()


def test_a_record_moves_only_as_the_protocol_has_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    record = store.begin("m", Role.SOURCE, {})
    with pytest.raises(RefusedError, match="is suspending at its source: it cannot become committed"):
        store.move(record, State.COMMITTED)
    assert record.state is State.SUSPENDING
    store.close()


def test_a_migration_begins_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    record = store.begin("m", Role.DESTINATION, {})
    with pytest.raises(RefusedError, match="under way here already, restoring"):
        store.begin("m", Role.DESTINATION, {})
    store.move(record, State.RELEASED)
    assert store.begin("m", Role.DESTINATION, {}).state is State.RESTORING
    store.close()


def test_every_state_can_be_reached() -> None:
    for role, transitions in TRANSITIONS.items():
        reached, new = set(), {FIRST[role]}
        while new:
            reached |= new
            new = {after for one in new for after in transitions[one]} - reached
        assert reached == transitions.keys()


def test_the_records_of_a_newer_agent_are_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="was written by a newer agent"):
        Store(path)


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(StoreError, match=r"cannot (open|read) the agent's state .*state\.db"):
        Store(path)


def test_keys_differ_and_are_recognised() -> None:
    token = tokens.new_token()
    one, other = tokens.key_for(token, "one"), tokens.key_for(token, "other")
    assert one != other
    assert tokens.matches(one, tokens.digest(one))
    assert not tokens.matches(other, tokens.digest(one))


# --- settings --------------------------------------------------------------------------------------------


def parse(text: str) -> Settings:
    return settings.parse(tomllib.loads(text), "agent.toml", Path("/run/x"), Path("/var/x"))


def test_the_file_that_install_writes_is_the_defaults() -> None:
    given = parse(settings.DEFAULT_TEXT)
    assert given == parse("")
    uncommented = "\n".join(
        line.removeprefix("# ") if line.startswith(("# ", '# "')) and " = " in line else line
        for line in settings.DEFAULT_TEXT.splitlines()
        if not line.startswith('# "198') and not line.startswith("# listen")
    )
    assert parse(uncommented) == given


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port = 0", "port: 0 is less than"),
        ('port = "x"', "port: 'x' is not of type"),
        ("prot = 1", ".*'prot' was unexpected"),
        ('listen = ["nowhere"]', "listen: 'nowhere' is not an IP address"),
        ("[deadlines]\ndrain = -1", "deadlines.drain: -1"),
        ("[deadlines]\ndarin = 1", "deadlines: .*'darin' was unexpected"),
        ('[peers]\n"10.0.0.0/33" = "h:1"', "peers: .*10.0.0.0/33"),
        ('[peers]\n"10.0.0.0/8" = "h"', ".*'h' is not host:port"),
        ('[tls]\nca = "relative"', "tls.ca: 'relative'"),
    ],
)
def test_a_mistake_in_the_settings_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"agent.toml: {message}"):
        parse(text)


def gid(address: str) -> str:
    return gids.of(ipaddress.ip_address(address))


def test_an_agent_is_found_from_a_gid() -> None:
    peers = '"198.51.100.0/24" = "a:1"\n"198.51.100.7" = "b:2"\n"2001:db8::/32" = "[::1]:3"'
    given = parse(f"port = 7\n[peers]\n{peers}")
    assert given.agent_for(gid("10.78.0.11")) == "10.78.0.11:7"
    assert given.agent_for(gid("198.51.100.8")) == "a:1"
    assert given.agent_for(gid("198.51.100.7")) == "b:2"
    assert given.agent_for(gid("2001:db8::1")) == "[::1]:3"
    assert given.agent_for(gid("2001:db9::1")) == "[2001:db9::1]:7"
    with pytest.raises(AgentError, match="no agent is known for GID fe80::1"):
        given.agent_for(gid("fe80::1"))


# --- containers and devices ------------------------------------------------------------------------------


def make_process(proc: Path, pid: int, cgroup: str, comm: str = "app", files: tuple[str, ...] = ()) -> None:
    (proc / str(pid) / "fd").mkdir(parents=True)
    (proc / str(pid) / "cgroup").write_text(cgroup)
    (proc / str(pid) / "comm").write_text(comm + "\n")
    (proc / str(pid) / "stat").write_text(f"{pid} ({comm}) S 1 " + " ".join(str(n) for n in range(5, 53)))
    for number, file in enumerate(files):
        (proc / str(pid) / "fd" / str(number)).symlink_to(file)


@pytest.fixture
def containers(tmp_path: Path) -> Containers:
    proc, run = tmp_path / "proc", tmp_path / "run"
    for container, pid in (("abc", 100), ("abcdef", 200), ("v1", 300)):
        (run / "containers" / container).mkdir(parents=True)
        (run / "containers" / container / "state.json").write_text(json.dumps({"pid": pid}))
    (run / "containers" / "half").mkdir()
    (run / "containers" / "gone").mkdir()
    (run / "containers" / "gone" / "state.json").write_text('{"pid": 999}')
    scope = "0::/system.slice/docker-{}.scope\n"
    make_process(proc, 100, scope.format("abc"))
    make_process(proc, 101, scope.format("abc"), "ib_send_bw", ("/dev/null", "/dev/infiniband/uverbs0"))
    make_process(proc, 102, "0::/system.slice/docker-abc.scope/nested\n")
    make_process(proc, 200, scope.format("abcdef"), files=("/dev/infiniband/uverbs1",))
    make_process(proc, 300, "12:devices:/docker/v1\n1:name=systemd:/docker/v1\n0::/\n")
    make_process(proc, 400, "0::/user.slice\n", "a) b (c", ("/dev/infiniband/uverbs0",))
    make_process(proc, 1, "0::/\n")
    return Containers(run, proc)


@pytest.mark.parametrize(
    ("pid", "container"),
    [(100, "abc"), (101, "abc"), (102, "abc"), (200, "abcdef"), (300, "v1"), (400, ""), (1, ""), (12345, "")],
)
def test_a_process_is_in_the_container_that_its_cgroup_says(
    containers: Containers, pid: int, container: str
) -> None:
    assert containers.of(pid) == container


def test_the_holders_of_devices_are_found_by_their_open_files(containers: Containers) -> None:
    assert [str(one) for one in containers.holders("abc")] == ["process 101 (ib_send_bw)"]
    assert [one.pid for one in containers.holders("abcdef")] == [200]
    assert containers.holders("v1") == []


def test_a_process_is_told_from_a_later_one_of_its_number(containers: Containers) -> None:
    assert containers.started(400) == "22"
    assert containers.started(12345) == ""


def test_the_counterpart_of_a_gid_is_of_its_kind(tmp_path: Path) -> None:
    devices = Devices(make_sysfs(tmp_path, gid("10.78.0.12")))
    there = GidEntry(1, 1, gid("10.78.0.11"), "RoCE v2")
    assert devices.counterpart("rxe0") == "rxe0"
    assert devices.counterpart("mlx5_0") == "rxe0"  # the only one
    assert devices.counterpart_of_gid(there, "rxe0").gid == gid("10.78.0.12")
    with pytest.raises(AgentError, match=r"no GID that could take the place of 10.78.0.11 \(RoCE v1\)"):
        devices.counterpart_of_gid(GidEntry(1, 1, gid("10.78.0.11"), "RoCE v1"), "rxe0")
    with pytest.raises(AgentError, match="no GID that could take the place of 2001:db8::1"):
        devices.counterpart_of_gid(GidEntry(1, 1, gid("2001:db8::1"), "RoCE v2"), "rxe0")


def test_a_device_that_cannot_be_told_is_asked_about(tmp_path: Path) -> None:
    make_sysfs(tmp_path, gid("10.78.0.12"), "rxe0")
    devices = Devices(make_sysfs(tmp_path, gid("10.78.1.12"), "rxe1"))
    with pytest.raises(AgentError, match="take the place of mlx5_0: there are rxe0, rxe1, none of that name"):
        devices.counterpart("mlx5_0")
    with pytest.raises(AgentError, match="there is none at all"):
        Devices(tmp_path / "none").counterpart("rxe0")


def test_a_smaller_device_is_named_by_what_it_lacks() -> None:
    assert shortfalls({"max_qp": 10, "max_mr": 5, "max_srq": 1}, {"max_qp": 9, "max_mr": 5}) == [
        "max_qp is 9, and 10 at the source"
    ]


# --- the manifest ----------------------------------------------------------------------------------------


def test_a_manifest_is_written_whole_and_for_root_alone(tmp_path: Path) -> None:
    document = manifest.seal({"migration": "m"})
    manifest.write(str(tmp_path), document)
    assert manifest.read(str(tmp_path)) == document
    assert [path.name for path in tmp_path.iterdir()] == ["migrrdma.json"]
    assert (tmp_path / "migrrdma.json").stat().st_mode & 0o777 == 0o600


def test_a_checkpoint_without_rdma_has_no_manifest(tmp_path: Path) -> None:
    assert manifest.read(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged"),
        ("[]", "this is no manifest"),
        ('{"version": 9}', "version 9 of the manifest; this agent knows version 1"),
        ('{"version": 1, "digest": "0"}', "the digest does not fit"),
        ("[" * 100_000, "damaged"),
    ],
)
def test_a_manifest_that_is_not_one_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "migrrdma.json").write_text(content)
    with pytest.raises(ManifestError, match=f"migrrdma.json.*{message}"):
        manifest.read(str(tmp_path))


def test_a_manifest_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "migrrdma.json").symlink_to("/etc/passwd")
    with pytest.raises(ManifestError, match="cannot read"):
        manifest.read(str(tmp_path))


# --- the client ------------------------------------------------------------------------------------------


def test_the_runtime_can_import_the_client_without_its_site_packages() -> None:
    package = Path(manifest.__file__).parents[2]
    script = (
        f"import sys; sys.path.insert(0, {str(package)!r})\n"
        "from migrrdma_runtime.wire import manifest, runtime_client\n"
        "heavy = {'jsonschema', 'grpc', 'asyncio', 'typing', 'dataclasses', 're'} & set(sys.modules)\n"
        "print(sorted(heavy - set(before)))\n"
    )
    script = "import json, socket, sys; before = list(sys.modules)\n" + script
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_an_agent_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()
        agent = runtime_client.Agent(str(tmp_path / "agent.sock"), patience=0.1)
        with agent, pytest.raises(UnreachableError, match=r"has said nothing for 0.1 s"):
            agent.status()


def test_an_agent_that_is_not_there_is_said_to_be_started(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"No such file.*systemctl start migrrdma-agent"):
        runtime_client.connect(str(tmp_path))
    assert not list(tmp_path.iterdir())
