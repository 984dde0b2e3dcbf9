"""What is kept of a dump lies beside the images themselves, whatever links lead there."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrrdma_runtime.wire import kept_images


@pytest.fixture
def pointer(tmp_path: Path) -> str:
    """Where the agent would find what is kept."""
    (tmp_path / "state").mkdir()
    return str(tmp_path / "state" / "0123")


@pytest.mark.parametrize("link", ["images", "folder"])
def test_it_is_beside_the_images_that_a_link_leads_to(tmp_path: Path, pointer: str, link: str) -> None:
    """A hard link leaves no file system, and the agent, which may have another root, is to follow no link."""
    disk = tmp_path / "disk"
    (disk / "images").mkdir(parents=True)
    (disk / "images" / "pages-1.img").write_text("memory")
    elsewhere = tmp_path / "elsewhere"
    if link == "folder":
        elsewhere.symlink_to(disk)
    else:
        elsewhere.mkdir()
        (elsewhere / "images").symlink_to(disk / "images")
    images = str(elsewhere / "images")
    folder = kept_images.prepare(pointer, images)
    assert Path(folder).parent == disk
    assert Path(pointer).readlink() == Path(folder)
    kept_images.keep(folder, images)
    assert Path(folder, "pages-1.img").samefile(disk / "images" / "pages-1.img")
    kept_images.forget(pointer)
    assert [one.name for one in disk.iterdir()] == ["images"]
