"""A manifest is written whole, and one that is not is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from migrrdma_runtime.base import paths
from migrrdma_runtime.base.errors import ManifestError
from migrrdma_runtime.wire import manifest


def test_a_manifest_is_written_whole_and_for_root_alone(tmp_path: Path) -> None:
    document = manifest.seal({"migration": "m"})
    manifest.write(str(tmp_path), document)
    assert manifest.read(str(tmp_path)) == document
    assert [path.name for path in tmp_path.iterdir()] == ["migrrdma.json"]
    assert (tmp_path / "migrrdma.json").stat().st_mode & 0o777 == 0o600


def test_a_file_that_lies_where_the_manifest_is_prepared_is_not_written_to(tmp_path: Path) -> None:
    """The folder may be others' as well, who hold the file open; what is written holds a secret."""
    waiting = tmp_path / f"{paths.MANIFEST}.{os.getpid()}"
    waiting.write_text("theirs")
    waiting.chmod(0o666)
    manifest.write(str(tmp_path), {"token": "secret"})
    assert waiting.read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == [paths.MANIFEST, waiting.name]


def test_a_checkpoint_without_rdma_has_no_manifest(tmp_path: Path) -> None:
    assert manifest.read(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged"),
        ("[]", "this is no manifest"),
        ('{"version": 9}', "version 9 of the manifest; this agent knows version 3"),
        ('{"version": 3, "digest": "0"}', "the digest does not fit"),
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


def test_a_missing_manifest_of_a_checkpoint_that_holds_rdma_is_refused(tmp_path: Path) -> None:
    assert manifest.read(str(tmp_path)) is None
    (tmp_path / paths.PLUGIN_IMAGE).touch()
    with pytest.raises(ManifestError, match=r"migrrdma.json is missing, and the checkpoint holds RDMA"):
        manifest.read(str(tmp_path))


def test_a_manifest_that_is_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / paths.MANIFEST)
    with pytest.raises(ManifestError, match=r"migrrdma.json is no plain file"):
        manifest.read(str(tmp_path))
