"""What an image's archive loses on its way, and that everything else of it stays as it was."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator

import pytest

from migrrdma_runtime.base.errors import EngineError
from migrrdma_runtime.engine import archive

_LAYERS = ["a" * 64, "b" * 64]
_LONG = "blobs/" + "x" * 200
_INDEX = {
    "manifests": [
        {
            "digest": "sha256:1",
            "annotations": {"io.containerd.image.name": "docker.io/library/own:1", "kept": "1"},
        },
        {"digest": "sha256:2"},
    ]
}
_FILES = {
    "blobs/sha256/" + _LAYERS[0]: os.urandom(3 << 20),
    "blobs/sha256/" + _LAYERS[1]: b"short",
    _LONG: b"by a header of its own",
    "empty": b"",
    "index.json": json.dumps(_INDEX).encode(),
    "manifest.json": json.dumps([{"Config": "c.json", "RepoTags": ["own:1"], "Layers": []}]).encode(),
    "repositories": b"{}",
}


def _archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as written:
        folder = tarfile.TarInfo("blobs")
        folder.type = tarfile.DIRTYPE
        written.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mtime = 1.5
            written.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _pieces(data: bytes, size: int = 10_007) -> Iterator[bytes]:
    yield from (data[at : at + size] for at in range(0, len(data), size))


def _files(chunks: Iterator[bytes]) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as read:
        return {
            one.name: content.read()
            for one in read
            if one.isreg() and (content := read.extractfile(one)) is not None
        }


def test_layers_are_left_out_and_all_else_stays() -> None:
    found = _files(archive.without_layers(_pieces(_archive(_FILES)), ["sha256:" + _LAYERS[0]]))
    assert found == {name: content for name, content in _FILES.items() if _LAYERS[0] not in name}


def test_no_more_than_a_piece_is_held() -> None:
    pieces = archive.without_layers(_pieces(_archive(_FILES)), [])
    assert max(len(one) for one in pieces) <= 1 << 20


def test_names_are_taken_off_and_told() -> None:
    names: list[str] = []
    found = _files(archive.without_names(_pieces(_archive(_FILES)), names))
    assert names == ["own:1"]
    assert json.loads(found["manifest.json"]) == [{"Config": "c.json", "RepoTags": None, "Layers": []}]
    first, second = json.loads(found["index.json"])["manifests"]
    assert (first["annotations"], second["annotations"]) == ({"kept": "1"}, {})
    assert "repositories" not in found
    assert found[_LONG] == _FILES[_LONG]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty file"),
        (b"nonsense" * 1000, "invalid header"),
        (_archive(_FILES)[: 1 << 20], "unexpected end of data"),
        (_archive({"manifest.json": b"{"}), "Expecting property name"),
        (_archive({"manifest.json": b"[1]"}), "has no attribute"),
        (_archive({"manifest.json": bytes(5 << 20)}), "manifest.json has 5242880 bytes"),
        (_archive({"index.json": b"[]"}), "has no attribute"),
    ],
)
def test_what_is_no_archive_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(EngineError, match=f"an image.s archive cannot be read: .*{said}"):
        list(archive.without_names(_pieces(data), []))
