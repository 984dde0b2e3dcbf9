"""Importing a checkpoint: what is refused, what arrives, and what a failure leaves behind (nothing)."""

import json
import os
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from migrrdma_runtime import cli
from migrrdma_runtime.base.errors import CheckpointDirError, EngineError
from migrrdma_runtime.criu import images, staging
from migrrdma_runtime.engine import find
from migrrdma_runtime.engine.docker import Docker
from migrrdma_runtime.engine.docker_engine import DockerEngine
from migrrdma_runtime.engine.engine import Container

MakeDocker = Callable[..., Docker]

MAGIC = struct.pack("<I", 0x58313116)
ID = "c0ffee" + "0" * 58


def make_checkpoint(path: Path) -> Path:
    """A directory that looks like what CRIU and runc leave."""
    path.mkdir(parents=True)
    (path / "inventory.img").write_bytes(MAGIC + b"inventory")
    (path / "pstree.img").write_bytes(b"pstree")
    (path / "descriptors.json").write_text('["/dev/null","pipe:[1]","pipe:[2]"]')
    (path / "pages-1.img").write_bytes(os.urandom(3 << 20) + b"end")
    (path / "nested").mkdir()
    (path / "nested" / "more.img").write_bytes(b"more")
    return path


def nothing(_count: int) -> None:
    """No progress bar."""


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(one.relative_to(directory)): one.read_bytes() for one in directory.rglob("*") if one.is_file()
    }


@pytest.fixture(name="source")
def _source(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "shared" / "before-move")


@pytest.fixture(name="docker_root")
def _docker_root(tmp_path: Path) -> Path:
    root = tmp_path / "docker"
    (root / "containers" / ID).mkdir(parents=True)
    return root


@pytest.fixture(name="target")
def _target(docker_root: Path) -> Path:
    return docker_root / "containers" / ID / "checkpoints" / "before-move"


def copy(source: Path, target: Path, *, replace: bool = False) -> None:
    with images.examine(source) as found:
        images.copy(found, target, replace=replace, progress=nothing)


def examine(source: Path) -> None:
    with images.examine(source):
        pass


def require_owned(source: Path, trusted: str) -> None:
    with images.examine(source) as found:
        images.require_owned(found, trusted)


# --- whose it may be ---


def test_what_root_has_written_is_taken(source: Path) -> None:
    require_owned(source, "")


@pytest.mark.parametrize("name", [".", "nested", "nested/more.img", "inventory.img"])
def test_what_another_user_has_written_is_taken_only_if_one_says_so(source: Path, name: str) -> None:
    os.chown(source / name, 4711, 4711)
    with pytest.raises(
        CheckpointDirError,
        match=r"is 4711's, who could .* root's rights: .* --trust 4711, .*`chown -hR root: .*before-move",
    ):
        require_owned(source, "")
    with pytest.raises(CheckpointDirError, match="is 4711's"):
        require_owned(source, "nobody")
    require_owned(source, "4711")


def test_a_user_is_trusted_by_name(source: Path) -> None:
    os.chown(source, 65534, -1)
    require_owned(source, "nobody")
    with pytest.raises(CheckpointDirError, match=r"is nobody's, .* --trust nobody"):
        require_owned(source, "")
    with pytest.raises(CheckpointDirError, match="there is no user nosuch here"):
        require_owned(source, "nosuch")


@pytest.mark.parametrize(
    ("mode", "group", "good"), [(0o777, 0, False), (0o770, 4711, False), (0o770, 0, True)]
)
def test_where_others_may_write_it_is_not_taken(source: Path, mode: int, group: int, good: bool) -> None:
    os.chown(source / "nested", 0, group)
    (source / "nested").chmod(mode)
    try:
        require_owned(source, "4711")
        refused = ""
    except CheckpointDirError as error:
        refused = str(error)
    assert (not refused) == good
    assert good or refused.startswith(f"others may write to {source}/nested (mode {mode:04o})")


def access_list(user: int) -> bytes:
    """Everything for the owner and one more user, nothing for others; as linux/posix_acl_xattr.h has it."""
    nobody = 0xFFFFFFFF
    entries = [(1, 7, nobody), (2, 7, user), (4, 0, nobody), (16, 7, nobody), (32, 0, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries)


@pytest.mark.parametrize("where", ["", "nested", "pages-1.img"])
def test_whom_an_access_list_lets_write_is_another_as_well(source: Path, where: str) -> None:
    """Of root's group, to look at: chmod and chown do not show it."""
    os.setxattr(source / where, "system.posix_acl_access", access_list(4711))
    assert (source / where).stat().st_gid == 0
    with pytest.raises(CheckpointDirError, match=f"others may write to {source / where}"):
        require_owned(source, "")


# --- what a checkpoint is ---------------------------------------------------------------------------------


def test_the_checkpoint_or_the_folder_it_is_in_will_do(source: Path) -> None:
    assert images.find(source, None) == source
    assert images.find(source.parent, None) == source
    make_checkpoint(source.parent / "later")
    assert images.find(source.parent, "later") == source.parent / "later"
    with pytest.raises(CheckpointDirError, match=r"several checkpoints \(before-move, later\)"):
        images.find(source.parent, None)


@pytest.mark.parametrize("name", ["", "a", "-x", "../x", "a/b", "a b", "ok\n", ".hidden", "ä1"])
def test_a_name_that_docker_would_not_give_is_refused(name: str) -> None:
    with pytest.raises(CheckpointDirError, match="cannot be a checkpoint's name"):
        images.check_name(name)


def test_a_file_and_an_empty_directory_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointDirError, match="file is not a directory"):
        images.find(tmp_path / "file", None)
    with pytest.raises(CheckpointDirError, match=r"no inventory\.img in it"):
        images.find(tmp_path / "empty", None)


@pytest.mark.parametrize("name", ["inventory.img", "pstree.img", "descriptors.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: os.truncate(path, 0)], ids=["missing", "empty"])
def test_an_incomplete_checkpoint_is_refused(source: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(source / name)
    with pytest.raises(CheckpointDirError, match=f"{name} is missing or empty"):
        examine(source)


def test_a_checkpoint_that_holds_rdma_and_no_manifest_is_refused(source: Path) -> None:
    (source / "migrrdma.img").write_bytes(b"descriptors")
    with pytest.raises(
        CheckpointDirError, match=r"migrrdma.json is missing, without which nobody may restore"
    ):
        examine(source)
    (source / "migrrdma.json").write_text("{}")
    examine(source)


def test_an_inventory_of_something_else_is_refused(source: Path) -> None:
    (source / "inventory.img").write_bytes(b"\x7fELF")
    with pytest.raises(CheckpointDirError, match="not an image that CRIU wrote"):
        examine(source)


UNSAFE: dict[str, Callable[[Path], None]] = {
    "a symbolic link": lambda path: path.symlink_to("/etc/shadow"),
    "a FIFO": os.mkfifo,
}


@pytest.mark.parametrize(("kind", "make"), UNSAFE.items(), ids=UNSAFE.keys())
@pytest.mark.parametrize("where", [".", "nested"])
def test_nothing_but_files_and_directories_is_accepted(
    source: Path, kind: str, make: Callable[[Path], None], where: str
) -> None:
    make(source / where / "parent")
    with pytest.raises(CheckpointDirError, match=f"parent is {kind}"):
        examine(source)


def test_a_link_to_a_directory_is_not_entered(source: Path, tmp_path: Path) -> None:
    (source / "away").symlink_to(tmp_path)
    with pytest.raises(CheckpointDirError, match="away is a symbolic link"):
        examine(source)


# --- the copy ---------------------------------------------------------------------------------------------


def test_every_byte_arrives_and_nobody_else_may_read_it(source: Path, target: Path) -> None:
    copied: list[int] = []
    with images.examine(source) as found:
        images.copy(found, target, replace=False, progress=copied.append)
    assert contents(target) == contents(source)
    assert sum(copied) >= sum(len(one) for one in contents(source).values())
    assert {path.stat().st_mode & 0o077 for path in [target, *target.rglob("*")]} == {0}
    assert [path.name for path in target.parent.parent.iterdir()] == ["checkpoints"]


def test_holes_stay_holes(source: Path, target: Path) -> None:
    with (source / "pages-1.img").open("r+b") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"in the middle")
    copy(source, target)
    assert contents(target) == contents(source)
    assert (target / "pages-1.img").stat().st_blocks * 512 < 8 << 20


def test_a_checkpoint_of_that_name_is_replaced_only_by_force(source: Path, target: Path) -> None:
    copy(source, target)
    (source / "nested" / "more.img").write_bytes(b"newer")
    with pytest.raises(CheckpointDirError, match="a checkpoint before-move is there already"):
        copy(source, target)
    assert (target / "nested" / "more.img").read_bytes() == b"more"
    copy(source, target, replace=True)
    assert contents(target) == contents(source)
    assert [path.name for path in target.parent.parent.iterdir()] == ["checkpoints"]


def test_what_a_killed_import_left_is_cleared_away(source: Path, target: Path) -> None:
    stale = target.parent.parent / ".checkpoint-before-move.partial"
    (stale / "nested").mkdir(parents=True)
    (stale / "pages-9.img").write_text("stale")
    copy(source, target)
    assert contents(target) == contents(source)
    assert not stale.exists()


def test_an_interrupted_copy_leaves_nothing(source: Path, target: Path) -> None:
    def interrupt(_count: int) -> None:
        raise SystemExit(130)

    with pytest.raises(SystemExit), images.examine(source) as found:
        images.copy(found, target, replace=False, progress=interrupt)
    assert list(target.parent.iterdir()) == []
    assert [path.name for path in target.parent.parent.iterdir()] == ["checkpoints"]


def test_two_imports_of_one_name_do_not_meet(source: Path, target: Path) -> None:
    def second(_count: int) -> None:
        copy(source, target)

    with (
        pytest.raises(CheckpointDirError, match="another import is writing"),
        images.examine(source) as found,
    ):
        images.copy(found, target, replace=False, progress=second)


def test_a_file_that_shrinks_meanwhile_is_noticed(source: Path, target: Path) -> None:
    def shrink(count: int) -> None:
        if count == 1 << 20:  # the first block of the large one
            os.truncate(source / "pages-1.img", count)

    with (
        pytest.raises(CheckpointDirError, match=r"pages-1\.img became shorter"),
        images.examine(source) as found,
    ):
        images.copy(found, target, replace=False, progress=shrink)
    assert list(target.parent.iterdir()) == []


@pytest.fixture(name="tiny_disk")
def _tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Four megabytes, as a real file system; needs root, as the whole suite does."""
    disk = tmp_path / "tiny"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tiny", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_file_that_becomes_a_fifo_meanwhile_is_not_waited_for(source: Path, target: Path) -> None:
    """Whoever made the folder may still write to it."""

    def becomes_a_fifo(_count: int) -> None:
        if not (source / "pstree.img").is_fifo():
            (source / "pstree.img").unlink()
            os.mkfifo(source / "pstree.img")

    with (
        pytest.raises(CheckpointDirError, match=r"pstree\.img is no plain file any more"),
        images.examine(source) as found,
    ):
        images.copy(found, target, replace=False, progress=becomes_a_fifo)
    assert not target.exists()


def test_what_was_judged_is_what_is_copied_whoever_has_its_name_since(source: Path, target: Path) -> None:
    """Whoever may write to the folder around it can give its name to another."""
    judged = contents(source)
    with images.examine(source) as found:
        images.require_owned(found, "")
        source.rename(source.with_name("judged"))
        make_checkpoint(source)
        (source / "pstree.img").write_bytes(b"another's")
        images.copy(found, target, replace=False, progress=nothing)
    assert contents(target) == judged


def test_a_folder_of_it_that_becomes_a_link_is_not_followed(
    source: Path, target: Path, tmp_path: Path
) -> None:
    with images.examine(source) as found:
        (source / "nested").rename(tmp_path / "elsewhere")
        (source / "nested").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(CheckpointDirError, match="Not a directory; nothing was left behind"):
            images.copy(found, target, replace=False, progress=nothing)
    assert not target.exists()


def test_a_link_to_a_checkpoint_is_refused_by_name(source: Path) -> None:
    link = source.with_name("latest")
    link.symlink_to(source)
    with pytest.raises(CheckpointDirError, match="latest is no directory of its own: name that"):
        examine(link)


def test_too_little_space_is_seen_before_the_copy(source: Path, tiny_disk: Path) -> None:
    (source / "pages-2.img").write_bytes(os.urandom(3 << 20))
    with pytest.raises(CheckpointDirError, match=r"needs 6 MiB and .* has \d MiB free"):
        copy(source, tiny_disk / "checkpoints" / "full")
    assert [path.name for path in tiny_disk.rglob("*")] == ["checkpoints"]


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(source: Path, tiny_disk: Path) -> None:
    target = tiny_disk / "checkpoints" / "full"

    def fill(_count: int) -> None:
        if not (tiny_disk / "other").exists():
            (tiny_disk / "other").write_bytes(bytes(2 << 20))

    with (
        pytest.raises(CheckpointDirError, match="No space left on device; nothing was left behind"),
        images.examine(source) as found,
    ):
        images.copy(found, target, replace=False, progress=fill)
    assert sorted(path.name for path in tiny_disk.rglob("*")) == ["checkpoints", "other"]


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture(name="staged_dir", autouse=True)
def _staged_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the configuration says that checkpoints are staged; not made yet."""
    folder = tmp_path / "staged"
    (tmp_path / "config.toml").write_text(f'staged_dir = "{folder}"\n')
    monkeypatch.setenv("MIGRRDMA_CONFIG", str(tmp_path / "config.toml"))
    return folder


@pytest.fixture(name="discard")
def _discard(monkeypatch: pytest.MonkeyPatch, make_docker: MakeDocker) -> Callable[..., Any]:
    """Run ``migrrdma checkpoint discard`` against a daemon with one container."""
    daemon = make_docker(Container(ID, "web", "migrrdma", running=False))

    def run(*arguments: str) -> Any:
        monkeypatch.setattr(find, "DockerDaemon", lambda: daemon)
        return CliRunner().invoke(cli.app, ["checkpoint", "discard", *arguments])

    return run


@pytest.fixture(name="command")
def _command(
    monkeypatch: pytest.MonkeyPatch, make_docker: MakeDocker, docker_root: Path
) -> Callable[..., Any]:
    """Run ``migrrdma checkpoint import`` against a daemon with one container."""

    def run(
        *arguments: str, running: bool = False, runtime: str = "migrrdma", root: Path = docker_root
    ) -> Any:
        started: list[tuple[str, str]] = []
        daemon = make_docker(
            Container(ID, "web", runtime, running=running), info={"DockerRootDir": str(root)}, started=started
        )
        monkeypatch.setattr(find, "DockerDaemon", lambda: daemon)
        done = CliRunner().invoke(cli.app, ["checkpoint", "import", *arguments])
        return done, started

    return run


def test_import_says_what_to_do_next(
    command: Callable[..., Any], source: Path, target: Path, staged_dir: Path
) -> None:
    done, started = command(str(source), "web")
    assert done.exit_code == 0, done.output
    assert "imported before-move into web (5 files, 3 MiB)" in done.output
    assert "Next: docker start web" in done.output
    assert started == []
    assert contents(target) == contents(source)
    assert staging.staged(staged_dir, ID) == target


def test_the_last_that_was_imported_is_staged(
    command: Callable[..., Any], source: Path, target: Path, staged_dir: Path
) -> None:
    for name in ("before-move", "later"):
        done, _ = command("--name", name, str(source), "web")
        assert done.exit_code == 0, done.output
    assert staging.staged(staged_dir, ID) == target.with_name("later")
    assert [one.name for one in staged_dir.iterdir()] == [ID]
    assert stat.S_IMODE(staged_dir.stat().st_mode) == 0o700


def test_what_cannot_be_staged_is_said_with_where_the_checkpoint_is(
    command: Callable[..., Any], source: Path, target: Path, staged_dir: Path
) -> None:
    staged_dir.write_text("in the way")
    done, _ = command(str(source), "web")
    assert f"{target} is in place, and cannot be staged in {staged_dir}: " in str(done.exception)
    assert contents(target) == contents(source)


def test_nothing_is_staged_for_a_container_that_was_started_meanwhile(
    command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    target: Path,
    staged_dir: Path,
) -> None:
    real = images.copy

    def copy_and_start(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        monkeypatch.setattr(
            DockerEngine, "container", lambda *_: Container(ID, "web", "migrrdma", running=True)
        )

    monkeypatch.setattr(images, "copy", copy_and_start)
    done, _ = command(str(source), "web")
    assert "container web was started while the checkpoint was copied" in str(done.exception)
    assert not staged_dir.exists()
    assert contents(target) == contents(source)


def test_what_is_staged_can_be_discarded(
    command: Callable[..., Any], discard: Callable[..., Any], source: Path, target: Path, staged_dir: Path
) -> None:
    command(str(source), "web")
    done = discard("--json", "web")
    assert json.loads(done.stdout) == {"container": "web", "id": ID, "path": str(target), "discarded": True}
    assert staging.staged(staged_dir, ID) is None
    assert target.exists()
    assert "nothing is staged for container web" in str(discard("web").exception)


def test_of_a_container_that_was_removed_nothing_is_staged(
    command: Callable[..., Any], discard: Callable[..., Any], source: Path, target: Path, staged_dir: Path
) -> None:
    command(str(source), "web")
    shutil.rmtree(target)
    assert staging.staged(staged_dir, ID) is None
    assert discard("web").exit_code == 0
    assert not list(staged_dir.iterdir())


def test_the_links_of_removed_containers_go_with_the_next_import(
    command: Callable[..., Any], source: Path, target: Path, staged_dir: Path, tmp_path: Path
) -> None:
    staged_dir.mkdir()
    containers = target.parents[2]
    (containers / "lives").mkdir()
    for name, checkpoint in {
        "removed": containers / "removed" / "checkpoints" / "move",
        "lives": containers / "lives" / "checkpoints" / "gone",
        "unmounted": tmp_path / "disk" / "containers" / "other" / "checkpoints" / "move",
    }.items():
        (staged_dir / name).symlink_to(checkpoint)
    command(str(source), "web")
    assert sorted(link.name for link in staged_dir.iterdir()) == sorted(["lives", "unmounted", ID])


def test_import_can_start_the_container(command: Callable[..., Any], source: Path, target: Path) -> None:
    done, started = command("--start", "--name", "other", "--json", str(source), "web")
    document = json.loads(done.stdout)
    assert document["started"] is True
    assert document["path"] == str(target.with_name("other"))
    assert document["staged"] is True
    assert started == [(ID, "")]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"running": True}, "container web is running"),
        ({"root": Path("/nonexistent")}, "there is no /nonexistent/containers"),
    ],
)
def test_a_container_that_will_not_do_is_refused(
    command: Callable[..., Any], source: Path, target: Path, changed: dict[str, Any], message: str
) -> None:
    done, _ = command(str(source), "web", **changed)
    assert isinstance(done.exception, EngineError)
    assert message in str(done.exception)
    assert not target.exists()


def test_the_command_copies_what_it_has_judged(
    command: Callable[..., Any], source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged, judge = contents(source), images.require_owned

    def exchanged_thereafter(found: images.CheckpointDir, trusted: str) -> None:
        judge(found, trusted)
        source.rename(source.with_name("judged"))
        os.chown(make_checkpoint(source), 4711, 4711)

    monkeypatch.setattr(images, "require_owned", exchanged_thereafter)
    done, _ = command(str(source), "web")
    assert done.exit_code == 0, done.output
    assert contents(target) == judged


def test_an_unknown_container_is_refused(command: Callable[..., Any], source: Path) -> None:
    done, _ = command(str(source), "nobody")
    assert "no such container" in str(done.exception)


def test_a_container_of_another_runtime_is_a_warning_and_dockers_to_restore(
    command: Callable[..., Any], source: Path, target: Path, staged_dir: Path
) -> None:
    done, started = command("--start", str(source), "web", runtime="runc")
    assert "created with the runtime runc" in done.output
    assert target.exists()
    assert started == [(ID, "before-move")]
    assert not staged_dir.exists()


def test_the_command_itself_starts_the_container_when_all_is_there(
    serve: Callable[..., list[str]], source: Path, docker_root: Path, target: Path
) -> None:
    def start() -> tuple[int, None]:
        assert contents(target) == contents(source)
        return 204, None

    requests = serve(daemon_that_starts(docker_root, start))
    done = import_and_start(source)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "started web from it"
    assert requests[-1] == START


def test_a_restore_that_fails_is_told_in_docker_s_words_and_can_be_tried_again(
    serve: Callable[..., list[str]], source: Path, docker_root: Path, target: Path
) -> None:
    refusal = {"message": "failed to create task:\n  criu failed: type RESTORE errno 0\n"}
    serve(daemon_that_starts(docker_root, (500, refusal)))
    done = import_and_start(source)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "migrrdma: error: failed to create task: criu failed: type RESTORE errno 0; the checkpoint itself is "
        "in place: `docker start web` tries again\n"
    )
    assert contents(target) == contents(source)


START = f"POST /v1.45/containers/{ID}/start"


def daemon_that_starts(root: Path, answer: object) -> dict[str, object]:
    """A daemon with the one container, stopped."""
    web = {"Id": ID, "Name": "/web", "HostConfig": {"Runtime": "migrrdma"}, "State": {"Running": False}}
    return {
        "GET /version": (200, {"ApiVersion": "1.45"}),
        "GET /v1.45/info": (200, {"DockerRootDir": str(root)}),
        "GET /v1.45/containers/web/json": (200, web),
        f"GET /v1.45/containers/{ID}/json": (200, web),
        START: answer,
    }


def import_and_start(source: Path) -> subprocess.CompletedProcess[str]:
    """The real command, which finds its daemon by $DOCKER_HOST."""
    return subprocess.run(
        [sys.executable, "-m", "migrrdma_runtime", "checkpoint", "import", "--start", source, "web"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd="/",
    )


def test_no_progress_bar_disturbs_a_log(source: Path, tmp_path: Path) -> None:
    (tmp_path / "container").mkdir()
    target = str(tmp_path / "container" / "checkpoints" / "quiet")
    program = (
        "from pathlib import Path\n"
        "from migrrdma_runtime.criu import images\n"
        "from migrrdma_runtime.commands.checkpoint_import import _progress\n"
        f"with images.examine(Path({str(source)!r})) as source, _progress(source) as advance:\n"
        f"    images.copy(source, Path({target!r}), replace=False, progress=advance)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd="/")
    assert done.stdout + done.stderr == b""
