"""A checkpoint that is staged for a container is what its create restores, once; its start then finds it running."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from installed import BOTH_WAYS, FakeRuntime, Installation

MakeFake = Callable[[str], FakeRuntime]

_ADOPTED = "org.migrrdma.adopted"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"ociVersion": "1.0.2"}))
    return path


@pytest.fixture
def checkpoint(installation: Installation, tmp_path: Path) -> Path:
    """It waits for the container c1."""
    folder = tmp_path / "before-move"
    folder.mkdir()
    installation.staged_dir.mkdir()
    (installation.staged_dir / "c1").symlink_to(folder)
    return folder


def _annotations(bundle: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((bundle / "config.json").read_text()).get("annotations", {})
    return found


def _says(status: str) -> str:
    return f"""case "$*" in *state*) echo '{{"status": "{status}"}}';; *) echo started; exit 5;; esac"""


def _start(installation: Installation, fake_runtime: MakeFake, bundle: Path) -> None:
    """Have what its create has restored be started."""
    fake_runtime(_says("running"))
    kept = bundle.parent / "kept" / "c1"
    kept.mkdir(parents=True, exist_ok=True)
    labels = [f"{key}={value}" for key, value in _annotations(bundle).items()]
    (kept / "state.json").write_text(json.dumps({"labels": labels}))
    assert installation.run("--root", kept.parent, "start", "c1").stdout == b""


@BOTH_WAYS
def test_create_restores_it_and_only_once(
    installation: Installation, fake_runtime: MakeFake, bundle: Path, checkpoint: Path
) -> None:
    fake = fake_runtime("")
    options = (
        "--no-pivot",
        "--pid-file",
        "pid",
        "--console-socket=tty",
        "--preserve-fds",
        "2",
        "--pidfd-socket=p",
    )
    done = installation.run("--log", "log", "create", "--bundle", bundle, *options, "c1")
    assert done.returncode == 0, done.stderr
    expected = [
        "--log",
        "log",
        "restore",
        "--detach",
        "--image-path",
        str(checkpoint),
        "--bundle",
        str(bundle),
    ]
    expected += ["--console-socket", "tty", "--pid-file", "pid", "--preserve-fds", "2", "c1"]
    assert [one.decode() for one in fake.arguments()] == expected
    _start(installation, fake_runtime, bundle)
    assert not list(installation.staged_dir.iterdir())
    assert checkpoint.is_dir()
    fake = fake_runtime("")
    installation.run("create", "--bundle", bundle, "c1")
    assert fake.arguments()[0] == b"create"


@BOTH_WAYS
def test_images_that_no_engine_keeps_end_when_they_have_been_restored(
    installation: Installation, fake_runtime: MakeFake, bundle: Path
) -> None:
    staged = installation.staged_dir / "c1"
    staged.mkdir(parents=True)
    (staged / "pages-1.img").write_bytes(b"memory")
    fake_runtime("exit 3")
    installation.run("create", "--bundle", bundle, "c1")
    assert (staged / "pages-1.img").exists()
    fake = fake_runtime("")
    installation.run("create", "--bundle", bundle, "c1")
    assert str(staged).encode() in fake.arguments()
    (staged / "restore.log").write_text("what CRIU has said")
    _start(installation, fake_runtime, bundle)
    assert not list(installation.staged_dir.iterdir())


@BOTH_WAYS
def test_what_was_restored_and_never_started_can_be_tried_again(
    installation: Installation, fake_runtime: MakeFake, bundle: Path, checkpoint: Path
) -> None:
    """The engine was killed between the two."""
    fake = fake_runtime("")
    for _ in range(2):
        assert installation.run("create", "--bundle", bundle, "c1").returncode == 0
        assert str(checkpoint).encode() in fake.arguments()


@BOTH_WAYS
def test_what_was_staged_during_the_restore_stays_for_the_next(
    installation: Installation, fake_runtime: MakeFake, bundle: Path, checkpoint: Path
) -> None:
    link = installation.staged_dir / "c1"
    again = f"ln -s {checkpoint} {link}.new; mv -T {link}.new {link}"
    stages = f'case "$*" in *restore*) {again};; esac'
    fake_runtime(stages)
    assert installation.run("create", "--bundle", bundle, "c1").returncode == 0
    _start(installation, fake_runtime, bundle)
    assert link.is_dir()
    fake_runtime(stages)
    assert installation.run("restore", "--image-path", checkpoint, "--bundle", bundle, "c1").returncode == 0
    assert link.is_dir()


@BOTH_WAYS
def test_a_restore_that_fails_can_be_tried_again(
    installation: Installation, fake_runtime: MakeFake, bundle: Path, checkpoint: Path
) -> None:
    fake_runtime("exit 3")
    assert installation.run("create", "--bundle", bundle, "c1").returncode == 3
    fake = fake_runtime("")
    assert installation.run("create", "--bundle", bundle, "c1").returncode == 0
    assert str(checkpoint).encode() in fake.arguments()


@BOTH_WAYS
def test_another_container_is_created(
    installation: Installation, fake_runtime: MakeFake, bundle: Path, checkpoint: Path
) -> None:
    fake = fake_runtime("")
    for name in ("c2", "../staged/c1", "."):
        installation.run("create", "--bundle", bundle, name)
        assert fake.arguments()[0] == b"create", name
    assert checkpoint.is_dir()


@BOTH_WAYS
def test_what_has_gone_with_its_container_is_not_restored(
    installation: Installation, fake_runtime: MakeFake, bundle: Path, checkpoint: Path
) -> None:
    checkpoint.rmdir()
    fake = fake_runtime("")
    installation.run("create", "--bundle", bundle, "c1")
    assert fake.arguments()[0] == b"create"
    checkpoint.mkdir()  # another one, by the same name
    installation.run("create", "--bundle", bundle, "c1")
    assert fake.arguments()[0] == b"create"


@BOTH_WAYS
@pytest.mark.usefixtures("checkpoint")
def test_what_cannot_be_reached_is_not_begun_anew(
    installation: Installation, fake_runtime: MakeFake, bundle: Path
) -> None:
    link = installation.staged_dir / "c1"
    link.unlink()
    link.symlink_to("c1")
    fake = fake_runtime("")
    done = installation.run("create", "--bundle", bundle, "c1")
    assert done.returncode == 1
    assert b"is not started: what is staged for it cannot be reached" in done.stderr
    assert not fake.was_called


@BOTH_WAYS
def test_run_begins_nothing_anew_that_was_to_go_on(
    installation: Installation, fake_runtime: MakeFake, bundle: Path, checkpoint: Path
) -> None:
    fake = fake_runtime("")
    done = installation.run("run", "--bundle", bundle, "c1")
    assert done.returncode == 1
    assert b"a checkpoint is staged for it" in done.stderr
    assert not fake.was_called
    assert checkpoint.is_dir()


@BOTH_WAYS
def test_what_another_way_has_restored_is_not_restored_again(
    installation: Installation, fake_runtime: MakeFake, bundle: Path, checkpoint: Path
) -> None:
    """``docker start --checkpoint`` after an import."""
    fake_runtime("")
    installation.run("restore", "--image-path", checkpoint, "--bundle", bundle, "c1")
    assert not list(installation.staged_dir.iterdir())


@BOTH_WAYS
@pytest.mark.parametrize(
    ("mark", "status", "starts"),
    [
        (_ADOPTED, "running", False),
        (_ADOPTED, "created", True),
        (_ADOPTED, "stopped", True),
        ("none", "running", True),
    ],
)
@pytest.mark.parametrize("name", ["state.json", "config.json"])
def test_start_is_for_the_low_level_runtime_unless_it_was_restored_and_runs(
    installation: Installation,
    fake_runtime: MakeFake,
    tmp_path: Path,
    name: str,
    mark: str,
    status: str,
    starts: bool,
) -> None:
    fake_runtime(_says(status))
    kept = tmp_path / "kept" / "c1"
    kept.mkdir(parents=True)
    said = {"labels": [f"{mark}=4-2"]} if name == "state.json" else {"annotations": {mark: "4-2"}}
    (kept / name).write_text(json.dumps(said, indent=2))
    done = installation.run("--root", kept.parent, "start", "c1")
    assert (done.returncode, done.stdout) == ((5, b"started\n") if starts else (0, b""))
