"""A container's files on their way: what a layer is made of arrives, and what has gone meanwhile is gone there."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from migrrdma_runtime.base.errors import AgentError
from migrrdma_runtime.mover import streams


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A layer with everything that one can have."""
    layer = tmp_path / "here"
    (layer / "etc").mkdir(parents=True)
    (layer / "etc/passwd").write_text("root\n")
    (layer / "etc/shadow").write_text("secret\n")
    (layer / "etc/shadow").chmod(0o640)
    os.link(layer / "etc/passwd", layer / "etc/passwd-")
    (layer / "etc/motd").write_text("welcome\n")
    (layer / "new").mkdir()
    os.setxattr(layer / "etc/passwd", "user.note", b"kept")
    (layer / "link").symlink_to("etc/passwd")
    with (layer / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"in the middle")
    (layer / "name\nwith a line").write_text("x")
    if os.geteuid() == 0:  # CI's; of these nobody else can make one
        os.chown(layer / "etc/shadow", 0, 42)
        (layer / "etc/motd").unlink()
        os.mknod(layer / "etc/motd", stat.S_IFCHR, os.makedev(0, 0))
        os.setxattr(layer / "new", "trusted.overlay.opaque", b"y")
    return layer


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The same container's new layer."""
    layer = tmp_path / "there"
    layer.mkdir()
    return layer


def _carry(here: Path, there: Path, snapshot: Path, *, rest: bool) -> None:
    asyncio.run(streams.write_layer(there, streams.read_layer(here, snapshot, rest=rest)))


def _look(layer: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, names in os.walk(layer):
        for path in (Path(folder, one) for one in (*folders, *names)):
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            notes = {one: os.getxattr(path, one) for one in os.listxattr(path, follow_symlinks=False)}
            found[str(path.relative_to(layer))] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_rdev, content, notes,
                path.is_symlink() and path.readlink(),
            )  # fmt: skip
    return found


def test_everything_of_a_layer_arrives(here: Path, there: Path, tmp_path: Path) -> None:
    _carry(here, there, tmp_path / "snapshot", rest=False)
    assert _look(there) == _look(here)
    assert (there / "sparse").stat().st_blocks * 512 < 1 << 20


def test_the_rest_is_what_has_changed_and_takes_away_what_has_gone(
    here: Path, there: Path, tmp_path: Path
) -> None:
    _carry(here, there, tmp_path / "snapshot", rest=False)
    (here / "etc/passwd-").unlink()
    (here / "name\nwith a line").unlink()
    (here / "etc/motd").unlink()
    (here / "etc/motd").write_text("again\n")
    (here / "new/deep").mkdir()
    (here / "new/deep/file").write_text("later\n")
    (here / "link").unlink()
    (here / "link").mkdir()
    rest: list[bytes] = []

    async def counted() -> AsyncIterator[bytes]:
        async for chunk in streams.read_layer(here, tmp_path / "snapshot", rest=True):
            rest.append(chunk)
            yield chunk

    asyncio.run(streams.write_layer(there, counted()))
    assert _look(there) == _look(here)
    assert sum(map(len, rest)) < 1 << 20  # not the sparse file, nor what is as it was


def test_what_is_restored_from_arrives(tmp_path: Path) -> None:
    images, staged = tmp_path / "images", tmp_path / "staged"
    images.mkdir()
    staged.mkdir()
    (images / "pages-1.img").write_bytes(os.urandom(3 << 20))
    asyncio.run(streams.write_folder(staged, streams.read_folder(images)))
    assert (staged / "pages-1.img").read_bytes() == (images / "pages-1.img").read_bytes()


def test_an_archive_leaves_nothing_outside_and_replaces_nothing(tmp_path: Path) -> None:
    evil, staged = tmp_path / "evil", tmp_path / "staged"
    evil.mkdir()
    staged.mkdir()
    (evil / "door").symlink_to(tmp_path)
    (staged / "known").write_text("mine")
    (evil / "known").write_text("theirs")
    with pytest.raises(AgentError, match="known"):
        asyncio.run(streams.write_folder(staged, streams.read_folder(evil)))
    assert (staged / "known").read_text() == "mine"


def test_what_is_not_an_archive_is_refused(there: Path) -> None:
    async def noise() -> AsyncIterator[bytes]:
        yield b"not an archive" * 1000

    with pytest.raises(AgentError, match="tar"):
        asyncio.run(streams.write_folder(there, noise()))


def test_a_folder_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    async def read() -> None:
        async for _ in streams.read_folder(tmp_path / "gone"):
            pass

    with pytest.raises(AgentError, match="gone"):
        asyncio.run(read())
