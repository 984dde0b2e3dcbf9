"""A container's files on their way: what a layer is made of arrives, and what has gone meanwhile is gone there."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import stat
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from guest_build import compile_c

from migrrdma_runtime.base import build_id
from migrrdma_runtime.base.errors import AgentError
from migrrdma_runtime.mover import guest_library, layer, streams
from migrrdma_runtime.mover.layer import Changes, Layer


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


def _carry(here: Path, there: Path) -> Layer:
    found = Layer(here)
    found.look()
    asyncio.run(streams.write_layer(there, streams.read_layer(here)))
    return found


def _carry_rest(found: Layer, there: Path) -> int:
    """How many bytes of files that took."""
    rest: list[bytes] = []

    async def carry() -> None:
        changes = found.changes()
        await layer.keep_only(there, layer.told(changes.stays))
        if changes.changed:
            await streams.write_layer(there, counted(changes.changed))

    async def counted(names: list[str]) -> AsyncIterator[bytes]:
        async for chunk in streams.read_files(found.root, names):
            rest.append(chunk)
            yield chunk

    asyncio.run(carry())
    return sum(map(len, rest))


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


def test_everything_of_a_layer_arrives(here: Path, there: Path) -> None:
    _carry(here, there)
    assert _look(there) == _look(here)
    assert (there / "sparse").stat().st_blocks * 512 < 1 << 20


def test_the_rest_is_what_has_changed_and_takes_away_what_has_gone(here: Path, there: Path) -> None:
    time.sleep(0.2)  # nothing is so young any more that it could have changed unseen
    found = _carry(here, there)
    (here / "etc/passwd-").unlink()
    (here / "name\nwith a line").unlink()
    (here / "etc/motd").unlink()
    (here / "etc/motd").write_text("again\n")
    (here / "new/deep").mkdir()
    (here / "new/deep/file").write_text("later\n")
    (here / "link").unlink()
    (here / "link").mkdir()
    assert _carry_rest(found, there) < 1 << 20  # not the sparse file, nor what is as it was
    assert _look(there) == _look(here)


def test_of_what_has_not_changed_nothing_is_told_or_sent(here: Path, there: Path) -> None:
    time.sleep(0.2)  # nothing is so young any more that it could have changed unseen
    found = _carry(here, there)
    assert found.changes() == Changes({}, [])
    here.chmod(0o711)
    assert found.changes().changed == ["."]
    _carry_rest(found, there)
    assert stat.S_IMODE(there.stat().st_mode) == 0o711


def test_folders_are_renamed_onto_files_and_files_onto_folders(here: Path, there: Path) -> None:
    (here / "a/deep").mkdir(parents=True)
    (here / "a/deep/file").write_text("of a\n")
    (here / "b/deep").mkdir(parents=True)
    (here / "b/deep/file").write_text("of b\n")
    (here / "b/deep/other").write_text("of b too\n")
    (here / "f").write_text("a file\n")
    found = _carry(here, there)
    (here / "a").rename(here / "c")
    (here / "b").rename(here / "a")
    (here / "c").rename(here / "b")
    (here / "f").unlink()
    (here / "etc").rename(here / "f")
    (here / "etc").write_text("a file now\n")
    _carry_rest(found, there)
    assert _look(there) == _look(here)


def test_what_was_made_while_it_was_read_and_has_gone_since_is_not_there(here: Path, there: Path) -> None:
    found = Layer(here)
    found.look()
    (here / "etc/late").write_text("x")
    (here / "late/deep").mkdir(parents=True)
    asyncio.run(streams.write_layer(there, streams.read_layer(here)))
    (here / "etc/late").unlink()
    (here / "late/deep").rmdir()
    (here / "late").rmdir()
    _carry_rest(found, there)
    assert _look(there) == _look(here)


def test_links_are_made_and_undone_between_the_copies(here: Path, there: Path) -> None:
    found = _carry(here, there)
    (here / "etc/passwd-").unlink()
    os.link(here / "etc/passwd", here / "new/again")
    os.link(here / "etc/shadow", here / "new/shadow")
    (here / "etc/passwd").write_text("in place\n")
    (here / "new").chmod(0o700)
    _carry_rest(found, there)
    assert _look(there) == _look(here)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_has_changed_it_is_there_as_it_is_here(tmp_path: Path, there: Path, seed: int) -> None:
    chance, here = random.Random(seed), tmp_path / "here"  # noqa: S311 (it is to be the same each time)
    here.mkdir()
    _change(chance, here, 60)
    found = Layer(here)
    found.look()
    _change(chance, here, 10)
    asyncio.run(streams.write_layer(there, streams.read_layer(here)))
    _change(chance, here, 60)
    _carry_rest(found, there)
    assert _look(there) == _look(here)


def _change(chance: random.Random, root: Path, steps: int) -> None:
    """Make, remove, link and rename at random, under few names, so that they meet."""
    for _ in range(steps):
        one, other = (root.joinpath(*chance.choices("abc", k=chance.randint(1, 3))) for _ in range(2))
        with suppress(OSError):
            match chance.randrange(7):
                case 0 | 1:
                    one.parent.mkdir(parents=True, exist_ok=True)
                    one.write_text(str(chance.random()))
                case 2:
                    one.mkdir(parents=True)
                case 3:
                    shutil.rmtree(one) if one.is_dir() else one.unlink()
                case 4:
                    one.rename(other)
                case 5:
                    os.link(one, other)
                case _:
                    one.chmod(chance.choice((0o600, 0o644, 0o700)))


def test_names_that_lead_out_of_a_layer_are_refused(there: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/mine").write_text("x")
    (there / "door").symlink_to(tmp_path / "outside")
    asyncio.run(layer.keep_only(there, layer.told({"": ["door"], "door": []})))
    with pytest.raises(AgentError, match="no folder in a layer"):
        asyncio.run(layer.keep_only(there, layer.told({"../outside": []})))
    assert (tmp_path / "outside/mine").exists()


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


def _library(tmp_path: Path) -> tuple[bytes, str]:
    built = tmp_path / "libmigrrdma.so"
    compile_c(built, "-shared", "-Wl,--build-id", "-x", "c", "/dev/null")
    image = built.read_bytes()
    return image, build_id.read(image, "it")


async def _in_pieces(image: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(image), 1000):
        yield image[at : at + 1000]


def test_a_guest_library_arrives_under_its_own_name_and_whole(tmp_path: Path) -> None:
    image, version = _library(tmp_path)
    here, there = tmp_path / "here", tmp_path / "there"
    (here / version).mkdir(parents=True)
    (here / version / "libmigrrdma.so").write_bytes(image)
    for _ in range(2):  # another move may bring it as well
        asyncio.run(guest_library.write(there, version, guest_library.read(here, version)))
    assert [one.name for one in there.iterdir()] == [version]
    arrived = there / version / "libmigrrdma.so"
    assert arrived.read_bytes() == image
    assert stat.S_IMODE(arrived.stat().st_mode) == 0o755


def test_what_is_no_guest_library_of_that_name_is_refused(tmp_path: Path) -> None:
    image, version = _library(tmp_path)
    for content, name, why in (
        (image, "ab" * 20, f"came as {'ab' * 20} is {version}"),
        (b"no library", version, "no build-id"),
        (image[:100], version, "cut short|no build-id"),
    ):
        with pytest.raises(AgentError, match=why):
            asyncio.run(guest_library.write(tmp_path / "there", name, _in_pieces(content)))
    assert not (tmp_path / "there").exists()
