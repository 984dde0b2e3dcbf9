"""Garbage in the files that the launcher reads and on its command line, made by libFuzzer from sound ones."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from launcher_site import SOURCES, STRICT

from migrrdma_runtime.base import config

SECONDS = 15
COVERED = {
    "words_of_spec",
    "words_of_state",
    "settings_read",
    "command_line_read",
    "read_line",
    "is_plain_id",
}
"""What the fuzzer must have come to, or it has shown nothing."""

SEEDS = [
    b'\0{"linux": {"devices": [{"path": "/dev/infiniband/uverbs0"}]}}',
    b'\0{"annotations": {"org.migrrdma.enable": "true", "a\\u002eb\\u0069": "\\n"}} \n' + b" " * 200,
    b"\0" + b"x" * 60 + b"org.migrrdma.guest=0123",
    b"\1" + config.DEFAULT_TEXT.encode().replace(b"# ", b""),
    b'\1runtime = "crun"\n[criu]\ntcp_established = false\n',
    b"\2--root\0/r\0--log=l\0create\0--bundle\0b\0--no-pivot\0c1",
    b"\2exec\0-t\0--env\0A=1\0--\0c1\0true",
]


def test_no_file_and_no_argument_reaches_beyond_itself(tmp_path: Path) -> None:
    compiler = shutil.which("clang")
    assert compiler, "clang with libFuzzer is needed (apt install clang)"
    fuzzer, corpus = tmp_path / "fuzz", tmp_path / "corpus"
    sources = [SOURCES / name for name in ("command_line.c", "settings.c", "words.c")]
    subprocess.run(
        [compiler, *STRICT, "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all",
         "-fno-inline", "-DCHUNK=64", f"-I{SOURCES}", "-o", fuzzer, Path(__file__).with_name("fuzz_files.c"), *sources],
        check=True,
    )  # fmt: skip
    corpus.mkdir()
    for number, seed in enumerate(SEEDS):
        (corpus / str(number)).write_bytes(seed)
    result = subprocess.run(
        [fuzzer, f"-max_total_time={SECONDS}", "-max_len=4096", "-timeout=10",
         "-print_coverage=1", "-print_final_stats=1", corpus],
        cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS + 120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    units = re.search(r"stat::number_of_executed_units: (\d+)", result.stderr)
    assert units
    assert int(units[1]) > 10_000
    covered = set(re.findall(r"^COVERED_FUNC: hits: \d+ edges: \S+ (\w+)", result.stderr, re.MULTILINE))
    assert covered >= COVERED
