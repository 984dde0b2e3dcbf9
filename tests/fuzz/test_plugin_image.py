"""The CRIU plugin's image, whatever is in it: refused with a reason, or within its bounds; made by libFuzzer."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

from fuzzing import Fuzzer
from launcher_site import STRICT

PLUGIN = Path(__file__).resolve().parents[2] / "criu_plugin"

COVERED = {
    *("valid_header", "take_records", "take_record", "valid_file", "valid_mapping", "put_in_order"),
    *("by_id", "by_place", "array_grow"),
}
"""What the fuzzer must have come to, or it has shown nothing."""


def _image(*records: bytes) -> bytes:
    body = b"".join(records)
    return b"MIGRRDMA" + struct.pack("<IIIIQ", 1, 32, len(records), zlib.crc32(body), len(body)) + body


def _file(number: int) -> bytes:
    return (
        struct.pack("<IIIIIIiiiIII", 1, 176, number, 1, 2, 0, 10, 1, 5, 231, 192, 0)
        + _name("uverbs0")
        + _name("rxe0")
    )


def _mapping(start: int) -> bytes:
    return struct.pack("<IIiiQQQIIII", 2, 120, 10, 1, start, 8192, 4096, 3, 0, 231, 192) + _name("uverbs0")


def _name(name: str) -> bytes:
    return name.encode().ljust(64, b"\0")


SEEDS = (
    _image(),
    _image(_file(1), _mapping(4096)),
    _image(_file(3), _file(2), _file(1), _mapping(1 << 30), _mapping(4096)),
    _image(_mapping(4096), _mapping(8192)),
)


def test_no_image_reaches_beyond_itself(fuzzer: Fuzzer, tmp_path: Path) -> None:
    compiler = shutil.which("clang")
    assert compiler, "clang with libFuzzer is needed (apt install clang)"
    program, corpus = tmp_path / "fuzz", tmp_path / "corpus"
    sources = [Path(__file__).with_name("plugin_image.c"), PLUGIN / "image.c", PLUGIN / "array.c"]
    subprocess.run(
        [compiler, *STRICT, "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all", "-fno-inline",
         f"-I{PLUGIN}", "-o", program, *sources],
        check=True,
    )  # fmt: skip
    corpus.mkdir()
    for number, seed in enumerate(SEEDS):
        (corpus / f"{number}-as-it-is").write_bytes(b"\0" + seed)
        (corpus / f"{number}-mended").write_bytes(b"\1" + seed)
    result = subprocess.run(
        [program, f"-max_total_time={fuzzer.seconds:.0f}", "-max_len=8192", "-timeout=10", "-rss_limit_mb=1024",
         "-print_coverage=1", "-print_final_stats=1", corpus],
        cwd=tmp_path, capture_output=True, text=True, timeout=fuzzer.seconds + 120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    covered = set(re.findall(r"^COVERED_FUNC: hits: \d+ edges: \S+ (\w+)", result.stderr, re.MULTILINE))
    assert covered >= COVERED
