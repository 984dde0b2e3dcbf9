"""What install puts on a host, uninstall takes away, and neither leaves half done."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from trees import tree_of

from migrrdma_runtime.base import build_id, paths
from migrrdma_runtime.base.errors import DockerError, InstallError
from migrrdma_runtime.engine.docker import Docker
from migrrdma_runtime.engine.engine import Container
from migrrdma_runtime.host import machine
from migrrdma_runtime.host.install import payload, record, users
from migrrdma_runtime.host.install.docker_config import DEFAULT, DockerConfig
from migrrdma_runtime.host.install.install import plan as plan_install
from migrrdma_runtime.host.install.payload import Payload
from migrrdma_runtime.host.install.step import Step, locked, perform
from migrrdma_runtime.host.install.uninstall import plan as plan_uninstall
from migrrdma_runtime.host.machine import Finished, Host

MakeDocker = Callable[..., Docker]


@pytest.fixture(name="files", scope="module")
def _files() -> Payload:
    return payload.load(sys.executable)


def no_dockerd(_argv: Sequence[str], /) -> Finished | None:
    return None


def docker_of(host: Host, run: Callable[..., Finished | None] = no_dockerd) -> DockerConfig:
    return DockerConfig(host, run)


def install(host: Host, files: Payload) -> list[Step]:
    return list(perform(plan_install(host, files, docker_of(host))))


def uninstall(host: Host, *, purge: bool = False) -> list[Step]:
    return list(perform(plan_uninstall(host, docker_of(host), purge=purge)))


def write_daemon_json(host: Host, text: str) -> Path:
    path = host.path(DEFAULT)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode())
    return path


DAEMON_JSON: dict[str, str | None] = {
    "none": None,
    "empty": "",
    "blank": "\n",
    "no settings": "{}",
    "settings": '{\n\t"debug": true\n}',
    "other runtimes": '{"runtimes": {"crun": {"path": "/usr/bin/crun"}}}\n',
}


@pytest.fixture(name="daemon_json", params=list(DAEMON_JSON.values()), ids=list(DAEMON_JSON))
def _daemon_json(request: pytest.FixtureRequest, host: Host) -> str | None:
    text: str | None = request.param
    if text is not None:
        write_daemon_json(host, text)
    return text


@pytest.mark.usefixtures("daemon_json")
def test_install_and_purge_leave_no_trace(host: Host, files: Payload) -> None:
    before = tree_of(host)
    install(host, files)
    assert tree_of(host) != before
    uninstall(host, purge=True)
    assert tree_of(host) == before


@pytest.mark.usefixtures("daemon_json")
def test_a_second_install_finds_nothing_to_do(host: Host, files: Payload) -> None:
    install(host, files)
    assert [step.what for step in plan_install(host, files, docker_of(host)) if step.apply] == []


@pytest.mark.usefixtures("daemon_json")
def test_an_install_killed_after_any_step_is_completed_by_the_next(host: Host, files: Payload) -> None:
    before = tree_of(host)
    steps = plan_install(host, files, docker_of(host))
    install(host, files)
    complete = tree_of(host)
    uninstall(host, purge=True)
    for count in range(1, len(steps)):
        list(perform(plan_install(host, files, docker_of(host))[:count]))
        install(host, files)
        assert tree_of(host) == complete, f"killed after {steps[count - 1].what}"
        uninstall(host, purge=True)
        assert tree_of(host) == before, f"killed after {steps[count - 1].what}"


@pytest.mark.usefixtures("daemon_json")
def test_an_uninstall_killed_after_any_step_is_completed_by_the_next(host: Host, files: Payload) -> None:
    before = tree_of(host)
    install(host, files)
    for count in range(len(plan_uninstall(host, docker_of(host), purge=True))):
        list(perform(plan_uninstall(host, docker_of(host), purge=True)[:count]))
        uninstall(host, purge=True)
        assert tree_of(host) == before
        install(host, files)


def test_the_plan_alone_changes_nothing(host: Host, files: Payload) -> None:
    before = tree_of(host)
    steps = plan_install(host, files, docker_of(host))
    assert tree_of(host) == before
    (edit,) = [step for step in steps if step.what == DEFAULT]
    assert f'+      "path": "{paths.RUNTIME}"' in edit.preview.splitlines()


def test_everything_is_where_the_runtime_looks_for_it(host: Host, files: Payload) -> None:
    install(host, files)
    assert os.access(host.path(paths.RUNTIME), os.X_OK)
    assert {hook.name for hook in host.path(paths.HOOKS_DIR).iterdir()} == {
        Path(hook.path).name for hook in files.hooks
    }
    library = host.path(paths.GUEST_DIR) / "current" / paths.GUEST_LIBRARY
    assert library.read_bytes() == files.guest_library.content
    document = json.loads(host.path(DEFAULT).read_text())
    assert document == {"runtimes": {"migrrdma": {"path": paths.RUNTIME}}}


# --- Docker's configuration -------------------------------------------------------------------------------


def test_daemon_json_keeps_its_mode_owner_and_symbolic_link(host: Host, files: Payload) -> None:
    real = host.root / "etc" / "managed.json"
    real.write_text("{}")
    real.chmod(0o640)
    owner = (1234, 5678) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    os.chown(real, *owner)
    host.path(DEFAULT).parent.mkdir()
    host.path(DEFAULT).symlink_to(real)
    install(host, files)
    status = real.stat()
    assert host.path(DEFAULT).readlink() == real
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert (status.st_uid, status.st_gid) == owner
    assert "migrrdma" in real.read_text()


@pytest.mark.parametrize("entry", ['{"path": "/opt/other"}', '{"runtimeType": "io.containerd.kata.v2"}'])
def test_somebody_elses_runtime_of_our_name_is_refused(host: Host, files: Payload, entry: str) -> None:
    write_daemon_json(host, f'{{"runtimes": {{"migrrdma": {entry}}}}}')
    before = tree_of(host)
    with pytest.raises(InstallError, match='already has a runtime called "migrrdma"'):
        install(host, files)
    assert tree_of(host) == before


def test_our_own_entry_with_an_older_path_is_brought_up_to_date(
    host: Host, files: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_daemon_json(host, '{"debug": true}')
    for count in range(len(plan_install(host, files, docker_of(host))) + 1):  # killed after so many steps
        with monkeypatch.context() as patch:
            patch.setattr(paths, "RUNTIME", "/usr/local/sbin/older")
            install(host, files)
            assert "/usr/local/sbin/older" in host.path(DEFAULT).read_text()
        list(perform(plan_install(host, files, docker_of(host))[:count]))
        install(host, files)
        runtimes = json.loads(host.path(DEFAULT).read_text())["runtimes"]
        assert runtimes == {"migrrdma": {"path": paths.RUNTIME}}
        uninstall(host)
        assert host.path(DEFAULT).read_text() == '{"debug": true}'


def test_what_dockerd_does_not_accept_is_not_put_in_place(host: Host, files: Payload) -> None:
    path = write_daemon_json(host, '{"hosts": 5}')

    def dockerd(argv: Sequence[str], /) -> Finished:
        draft = Path(argv[-1])
        assert argv[:2] == ["dockerd", "--validate"]
        assert "migrrdma" in draft.read_text()
        return Finished(1, "", f"unable to configure the Docker daemon with file {draft}: hosts is no list\n")

    steps = plan_install(host, files, docker_of(host, dockerd))
    with pytest.raises(DockerError, match=f"with file {DEFAULT}: hosts is no list"):
        list(perform(steps))
    assert path.read_text() == '{"hosts": 5}'
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("accepts", [True, False])
def test_the_dockerd_of_this_host_is_asked(
    host: Host, files: Payload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accepts: bool
) -> None:
    path = write_daemon_json(host, "{}")
    script = (
        f'#!/bin/sh\n[ "$1" = --validate ] && grep -q migrrdma "$3" || exit 99\nexit {int(not accepts)}\n'
    )
    (tmp_path / "dockerd").write_text(script)
    (tmp_path / "dockerd").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    steps = perform(plan_install(host, files, docker_of(host, machine.run)))
    if accepts:
        list(steps)
    else:
        with pytest.raises(DockerError, match="exit status 1 without a message"):
            list(steps)
    assert ("migrrdma" in path.read_text()) is accepts


def test_the_draft_of_a_killed_install_is_cleared_away(host: Host, files: Payload) -> None:
    path = write_daemon_json(host, "{}")
    path.with_name(".daemon.json.migrrdma").symlink_to("/etc/passwd")
    install(host, files)
    assert list(path.parent.iterdir()) == [path]


def test_a_dockerd_that_cannot_validate_is_no_obstacle(host: Host, files: Payload) -> None:
    def dockerd(_argv: Sequence[str], /) -> Finished:
        return Finished(1, "", "Status: unknown flag: --validate\nSee 'dockerd --help'.\n")

    list(perform(plan_install(host, files, docker_of(host, dockerd))))
    assert "migrrdma" in host.path(DEFAULT).read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{"a": "\xff"}', "byte 7 is not UTF-8"), (b'{"a": 1,}', "daemon.json: line 1 column")],
)
def test_an_unreadable_daemon_json_is_named_and_left_alone(
    host: Host, files: Payload, content: bytes, message: str
) -> None:
    path = write_daemon_json(host, "")
    path.write_bytes(content)
    with pytest.raises(DockerError, match=message):
        install(host, files)
    assert path.read_bytes() == content


def test_uninstall_is_refused_while_ours_is_the_default_runtime(host: Host, files: Payload) -> None:
    install(host, files)
    text = host.path(DEFAULT).read_text()
    host.path(DEFAULT).write_text(text.replace("{", '{"default-runtime": "migrrdma",', 1))
    with pytest.raises(InstallError, match="default-runtime"):
        uninstall(host)
    assert host.path(paths.RUNTIME).exists()


def test_uninstall_leaves_an_entry_alone_that_was_pointed_elsewhere(host: Host, files: Payload) -> None:
    install(host, files)
    changed = host.path(DEFAULT).read_text().replace(paths.RUNTIME, "/opt/mine")
    host.path(DEFAULT).write_text(changed)
    uninstall(host)
    assert host.path(DEFAULT).read_text() == changed


def test_another_daemon_json_is_refused_while_ours_is_in_the_first(host: Host, files: Payload) -> None:
    install(host, files)
    with pytest.raises(InstallError, match=f"registered in {DEFAULT}"):
        plan_install(host, files, DockerConfig(host, no_dockerd, "/etc/other.json"))


# --- what stays -------------------------------------------------------------------------------------------


def test_a_changed_configuration_stays_and_is_purged_later(host: Host, files: Payload) -> None:
    before = tree_of(host)
    install(host, files)
    host.path(paths.CONFIG_FILE).write_text('runtime = "crun"\n')
    install(host, files)
    uninstall(host)
    assert host.path(paths.CONFIG_FILE).read_text() == 'runtime = "crun"\n'
    assert not host.path(paths.RUNTIME).exists()
    uninstall(host, purge=True)
    assert tree_of(host) == before


def test_an_untouched_configuration_is_upgraded(host: Host, files: Payload) -> None:
    newer, *others = files.configs
    older = payload.PayloadFile(newer.path, b"# older\n", newer.mode)
    before = tree_of(host)
    steps = len(plan_install(host, files, docker_of(host))) + 1
    for count in range(steps):  # an upgrade that is killed remembers that the old one was untouched
        install(host, replace(files, configs=(older, *others)))
        list(perform(plan_install(host, files, docker_of(host))[:count]))
        install(host, files)
        assert host.path(paths.CONFIG_FILE).read_bytes() == newer.content
        uninstall(host, purge=True)
        assert tree_of(host) == before


def test_the_mode_of_the_configuration_is_the_administrators(host: Host, files: Payload) -> None:
    install(host, files)
    host.path(paths.CONFIG_FILE).chmod(0o600)
    assert [step.what for step in install(host, files) if step.apply] == []
    assert stat.S_IMODE(host.path(paths.CONFIG_FILE).stat().st_mode) == 0o600


def test_older_guest_libraries_stay_beside_the_new_one(host: Host, files: Payload) -> None:
    older = host.path(paths.GUEST_DIR) / "0123" / paths.GUEST_LIBRARY
    older.parent.mkdir(parents=True)
    older.write_bytes(b"older")
    (older.parent.parent / "current").symlink_to("0123")
    install(host, files)
    assert older.read_bytes() == b"older"
    assert str((older.parent.parent / "current").readlink()) == files.build_id
    uninstall(host)
    assert older.exists()
    uninstall(host, purge=True)
    assert not host.path(paths.GUEST_DIR).exists()


def test_uninstall_without_a_record_goes_by_the_names(host: Host, files: Payload) -> None:
    install(host, files)
    host.path(record.FILE).unlink()
    uninstall(host)
    assert not host.path(paths.RUNTIME).exists()
    assert list(host.path(paths.HOOKS_DIR).iterdir()) == []
    assert json.loads(host.path(DEFAULT).read_text()) == {"runtimes": {}}


@pytest.mark.parametrize("text", ["{", '{"version": 2}', "[]"])
def test_a_record_that_cannot_be_used_is_named(host: Host, files: Payload, text: str) -> None:
    host.path(record.FILE).parent.mkdir(parents=True)
    host.path(record.FILE).write_text(text)
    with pytest.raises(InstallError, match=r"install\.json, the record of the installation"):
        plan_install(host, files, docker_of(host))


# --- who is in the way ------------------------------------------------------------------------------------


def test_running_containers_are_found_and_named(host: Host, make_docker: MakeDocker) -> None:
    for tasks, container, runtime in [
        ("run/containerd/io.containerd.runtime.v2.task/moby", "a" * 64, paths.RUNTIME),
        ("run/containerd/io.containerd.runtime.v2.task/default", "b" * 64, paths.RUNTIME),
        ("run/containerd/io.containerd.runtime.v2.task/moby", "c" * 64, "/usr/bin/runc"),
    ]:
        folder = host.root / tasks / container
        folder.mkdir(parents=True)
        (folder / "runtime").write_text(runtime)
    docker = make_docker(
        Container("a" * 64, "web", "migrrdma", running=True),
        Container("d" * 64, "elsewhere", "migrrdma", running=True),
        Container("e" * 64, "stopped", "migrrdma", running=False),
    )
    assert sorted(users.named(docker, users.running(host, docker))) == ["b" * 12, "elsewhere", "web"]
    assert sorted(users.named(None, users.running(host, None))) == ["a" * 12, "b" * 12]


def test_stopped_containers_of_our_runtime_are_listed(make_docker: MakeDocker) -> None:
    docker = make_docker(
        Container("1", "running", "migrrdma", running=True),
        Container("2", "stopped", "migrrdma", running=False),
        Container("3", "theirs", "runc", running=False),
    )
    assert users.stopped(docker) == ["stopped"]


def test_two_installs_do_not_meet(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(InstallError, match="another migrrdma install"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_step_that_fails_names_what_it_was_about(tmp_path: Path) -> None:
    step = Step("/etc/thing", (tmp_path / "missing").unlink)
    with pytest.raises(InstallError, match="/etc/thing: No such file or directory"):
        list(perform([step]))


# --- the guest library's name -----------------------------------------------------------------------------


def test_the_build_id_is_the_one_the_linker_wrote(files: Payload, tmp_path: Path) -> None:
    library = tmp_path / "lib.so"
    library.write_bytes(files.guest_library.content)
    notes = subprocess.run(["readelf", "-n", library], check=True, capture_output=True, text=True).stdout
    assert f"Build ID: {files.build_id}\n" in notes


def test_a_library_that_is_cut_short_is_refused(files: Payload) -> None:
    with pytest.raises(InstallError, match=r"half\.so is cut short"):
        build_id.read(files.guest_library.content[:80], "half.so")


def test_a_library_without_build_id_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.so"
    source = tmp_path / "plain.c"
    source.write_text("int x;\n")
    subprocess.run(
        [shutil.which("cc") or "cc", "-shared", "-nostdlib", "-Wl,--build-id=none", "-o", plain, source],
        check=True,
    )
    with pytest.raises(InstallError, match="has no build-id"):
        build_id.read(plain.read_bytes(), "plain.so")


def test_a_package_without_its_data_says_how_to_mend_it(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="missing from the package"):
        payload.load(sys.executable, tmp_path)


def test_what_containers_are_to_go_on_from_stays_until_it_is_purged(host: Host, files: Payload) -> None:
    install(host, files)
    folder = host.path(paths.STAGED_DIR)
    folder.mkdir()
    (folder / ("0" * 64)).symlink_to(host.root)
    said = [step.note for step in uninstall(host) if step.what == paths.STAGED_DIR]
    assert said == ["containers are to go on from these checkpoints; --purge removes it"]
    assert list(folder.iterdir())
    uninstall(host, purge=True)
    assert not folder.exists()
    assert host.root.is_dir()
