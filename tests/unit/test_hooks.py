"""The OCI hooks: they keep a container's state, take it away again, and harm nothing else."""

import json
import subprocess
from pathlib import Path

import pytest
from installed import Installation

_STATE = json.dumps({"ociVersion": "1.0.2", "id": "c1", "pid": 7})


def _run(
    installation: Installation, hook: str, *args: str, state: str = _STATE
) -> subprocess.CompletedProcess[str]:
    """Run a hook as a runtime does, with nothing in its environment."""
    return subprocess.run(
        [installation.hooks_dir / hook, *args],
        input=state,
        capture_output=True,
        text=True,
        env={},
        check=False,
    )


def test_the_state_is_recorded_for_root_alone_and_forgotten(installation: Installation) -> None:
    folder = installation.run_dir / "containers" / "c1"
    assert _run(installation, "record-container", str(folder)).returncode == 0
    assert (folder / "state.json").read_text() == _STATE
    assert (folder / "state.json").stat().st_mode & 0o077 == 0
    assert list(folder.iterdir()) == [folder / "state.json"]
    assert _run(installation, "forget-container", str(folder)).returncode == 0
    assert not folder.exists()


def test_forgetting_what_was_never_recorded_is_no_error(installation: Installation) -> None:
    assert (
        _run(installation, "forget-container", str(installation.run_dir / "containers" / "c1")).returncode
        == 0
    )


def test_a_container_that_cannot_be_recorded_runs_all_the_same(installation: Installation) -> None:
    installation.run_dir.write_text("in the way")
    result = _run(installation, "record-container", str(installation.run_dir / "containers" / "c1"))
    assert result.returncode == 0
    assert "the container cannot be migrated" in result.stderr


@pytest.mark.parametrize("hook", ["record-container", "forget-container"])
@pytest.mark.parametrize(
    "folder", ["", "/", "c1", "{run}", "{run}/containers/", "{run}/containers/..", "{run}/containers/c1/.."]
)
def test_a_path_that_is_not_a_containers_is_refused(
    installation: Installation, hook: str, folder: str
) -> None:
    keep: Path = installation.run_dir / "containers" / "other" / "state.json"
    keep.parent.mkdir(parents=True)
    keep.touch()
    result = _run(installation, hook, folder.format(run=installation.run_dir))
    assert result.returncode == 1
    assert f"{hook}: not a directory of a container: " in result.stderr
    assert [path for path in installation.run_dir.rglob("*") if path.is_file()] == [keep]
