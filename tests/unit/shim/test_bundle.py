"""Reading a spec as runc would, and replacing it whole or not at all."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrrdma_runtime.base.errors import SpecError
from migrrdma_runtime.shim import bundle


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (b'{"a": "b"}', True),
        (b' \n{"a": "b"}\n ', True),
        (b'{"a": "\xff"}', True),
        (b'{"a": "\\u003c\\u003e\\u0026"}', True),
        (b'{"a": "/dev/infiniband"}', False),
        (b'{"a": "/dev/\\u0069nfiniband"}', False),
        (b'{"a": "/dev\\/infin\\u0069band"}', False),
        (b'{"org.migrrdma.enable": "true"}', False),
        (b'{"org\\u002emigrrdma": ""}', False),
        (b'{"org\\u002Emigrrdma": ""}', False),
        (b'{"org.m\\u0069grrdma": ""}', False),
        (b'{"a": "b"', False),
        (b'{"a": "b"} x', False),
        (b"[]", False),
        (b" ", False),
        (b"", False),
    ],
)
def test_a_spec_is_plain_when_it_is_whole_and_holds_no_word_of_ours(
    tmp_path: Path, text: bytes, plain: bool
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text)
    assert bundle.is_plain(str(path)) is plain


@pytest.mark.parametrize("marker", [b"infiniband", b"org.migrrdma", b"\\u006"])
@pytest.mark.parametrize("offset", range(-12, 2))
def test_a_word_of_ours_is_found_across_the_edge_of_what_is_read_at_once(
    tmp_path: Path, marker: bytes, offset: int
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"{".ljust(bundle._CHUNK + offset) + marker + b"}")
    assert not bundle.is_plain(str(path))


_MARKED = st.sampled_from(["/dev/infiniband/uverbs0", "org.migrrdma.enable"])


@given(st.text(), _MARKED, st.integers(0), st.booleans())
def test_no_way_to_write_it_in_json_hides_a_word_of_ours(
    tmp_path_factory: pytest.TempPathFactory, around: str, word: str, position: int, upper: bool
) -> None:
    at = position % len(word)
    code = f"{ord(word[at]):04X}" if upper else f"{ord(word[at]):04x}"
    text = json.dumps([around + word]).replace(word, f"{word[:at]}\\u{code}{word[at + 1 :]}")
    path = tmp_path_factory.getbasetemp() / "config.json"
    path.write_text(text)
    assert json.loads(text) == [around + word]
    assert not bundle.is_plain(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "line 1, column 1: not valid JSON: expecting value"),
        (b'{\n "a": ', "line 2, column 7: not valid JSON: expecting value"),
        (b'{"a": 1,}', "line 1, column 9: not valid JSON: expecting property name enclosed in double quotes"),
        (b'{"a": 1, "a": 2}', "the key 'a' appears twice in one object"),
        (b"[" * 100_000, "maximum recursion depth exceeded"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(SpecError) as caught:
        bundle.read(str(path))
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_what_follows_the_first_value_is_ignored_as_by_runc(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(' {"a": 1} rest')
    assert bundle.read(str(path)) == ({"a": 1}, None)


def test_bytes_that_are_not_utf8_can_be_read_but_not_written_back(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'{"a": "\xff"}')
    value, unsafe = bundle.read(str(path))
    assert value == {"a": "\N{REPLACEMENT CHARACTER}"}
    assert str(unsafe) == f"{path}: not UTF-8 at byte 7, so it cannot be edited safely"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "roundtrip.json"
    path.touch()
    bundle.replace(str(path), {"value": value, "lone": "\ud800"})
    assert json.loads(path.read_bytes()) == {"value": value, "lone": "\ud800"}


def test_mode_owner_and_a_link_to_the_file_are_kept(tmp_path: Path) -> None:
    real, link = tmp_path / "real" / "spec", tmp_path / "config.json"
    real.parent.mkdir()
    real.write_text("{}")
    real.chmod(0o640)
    os.chown(real, 1234, 4321)
    link.symlink_to("real/spec")
    bundle.replace(str(link), {"a": 1})
    status = real.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 1234, 4321)
    assert link.is_symlink()
    assert json.loads(real.read_text()) == {"a": 1}
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["config.json", "real", "spec"]


def test_a_number_json_has_no_word_for_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"a": 1e999}')
    value, _ = bundle.read(str(path))
    with pytest.raises(SpecError, match="a number in it is too large to be written back"):
        bundle.replace(str(path), value)
    assert path.read_text() == '{"a": 1e999}'


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_the_original(tiny_disk: Path) -> None:
    path = tiny_disk / "config.json"
    original = '{"a": "' + "x" * 40_000 + '"}'
    path.write_text(original)
    with pytest.raises(SpecError, match=f"cannot write {path}: No space left on device"):
        bundle.replace(str(path), {"a": "x" * 40_000})
    assert path.read_text() == original
    assert list(tiny_disk.iterdir()) == [path]


_EDIT = "import sys; from migrrdma_runtime.shim import bundle; bundle.replace(sys.argv[1], {'a': 'new'})"


@pytest.mark.parametrize("moment", ["write", "fsync", "rename"])
def test_a_kill_in_the_middle_leaves_the_original_and_the_next_edit_cleans_up(
    tmp_path: Path, moment: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"a": "old"}')
    kill = ["strace", "-qq", "-o", "/dev/null", "-e", f"inject={moment}:signal=KILL:when=1"]
    # The interpreter itself writes nothing, so the first write is the edit's.
    killed = subprocess.run([*kill, sys.executable, "-IB", "-c", _EDIT, path], check=False)
    assert killed.returncode == -9
    assert json.loads(path.read_text()) in ({"a": "old"}, {"a": "new"})
    if moment != "rename":
        assert path.read_text() == '{"a": "old"}'
        assert len(list(tmp_path.iterdir())) == 2, "the half-written file should have been left behind"
    bundle.replace(str(path), {"a": "next"})
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_of_an_edit_at_work_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    others = tmp_path / ".config.json.migrrdma-1"  # process 1 is always alive
    others.touch()
    bundle.replace(str(path), {})
    assert others.exists()
