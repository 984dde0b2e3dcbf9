"""CRIU's own figures: read from what it writes, and from nothing else."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrrdma_runtime.criu import stats as criu_stats

_MAGIC = (0x55105940, 0x57093306)


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _image(tag: int, numbers: dict[int, int], magic: tuple[int, int] = _MAGIC) -> bytes:
    entry = b"".join(_varint(field << 3) + _varint(value) for field, value in numbers.items())
    message = _varint(tag << 3 | 2) + _varint(len(entry)) + entry
    return struct.pack("<III", *magic, len(message)) + message


def test_a_dumps_figures_end_when_the_file_was_written(tmp_path: Path) -> None:
    file = tmp_path / "stats-dump"
    file.write_bytes(_image(1, {1: 1500, 2: 250_000, 3: 9, 4: 9, 5: 1 << 40}))
    written = file.stat().st_mtime
    freeze, frozen = criu_stats.dump_steps(str(tmp_path), written)
    assert (freeze["name"], freeze["seconds"], frozen["name"], frozen["seconds"]) == (
        "freeze", 0.0015, "frozen", 0.25,
    )  # fmt: skip
    assert frozen["start"] == pytest.approx(written - 0.25)
    assert freeze["start"] == pytest.approx(written - 0.2515)


def test_a_restores_figure(tmp_path: Path) -> None:
    (tmp_path / "stats-restore").write_bytes(_image(2, {1: 0, 2: 0, 3: 100, 4: 2_500_000}))
    [step] = criu_stats.restore_steps(str(tmp_path), 0)
    assert (step["name"], step["seconds"]) == ("criu", 2.5)


def test_what_an_earlier_run_left_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "stats-dump"
    file.write_bytes(_image(1, {1: 1, 2: 2}))
    assert criu_stats.dump_steps(str(tmp_path), file.stat().st_mtime + 1) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        _image(1, {1: 1, 2: 2}, (1, 2)),
        _image(2, {1: 1, 2: 2}),
        _image(1, {1: 1, 2: 2})[:-1],
        struct.pack("<III", *_MAGIC, 1 << 31),
        struct.pack("<III", *_MAGIC, 2) + b"\x0d\x00",
        struct.pack("<III", *_MAGIC, 11) + b"\x08" + b"\xff" * 10,
    ],
)
def test_what_cannot_be_read_is_left_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stats-dump").write_bytes(content)
    assert criu_stats.dump_steps(str(tmp_path), 0) == []


def test_no_file_is_no_error(tmp_path: Path) -> None:
    assert criu_stats.dump_steps(str(tmp_path), 0) == []
    assert criu_stats.restore_steps(str(tmp_path), 0) == []


@given(st.binary(max_size=64))
def test_no_content_is_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("stats")
    (folder / "stats-dump").write_bytes(struct.pack("<III", *_MAGIC, len(content)) + content)
    criu_stats.dump_steps(str(folder), 0)
