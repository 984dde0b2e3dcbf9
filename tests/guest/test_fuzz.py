"""Garbage at the control socket, made by libFuzzer from a few meaningful conversations."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

from guest_agent import WIRE
from guest_build import GUEST_INCLUDES, ROOT, Built, guest_sources

SECONDS = 60
HELPED = 0x8000
REACHED = {
    "mig_message_handle", "mig_message_tick", "mig_message_lost", "mig_quiesce_begin", "mig_quiesce_step", "mig_park",
    "mig_rebuild", "mig_prepare", "mig_connect", "mig_keys", "mig_resume", "mig_undo", "mig_places_prepare",
    "mig_answer_addresses",
}  # fmt: skip
"""What the fuzzer must have come to, or it has shown nothing."""

_THERE = bytes([1] * 16)
"""To where there is an address handle."""

CONVERSATIONS = [
    [
        WIRE.pack("QUIESCE", {"timeout_ms": 1000}),
        WIRE.pack("PARK"),
        WIRE.pack(
            "REBUILD",
            {"context": 1, "device": "fake1"},
            [{"port": 1, "index": 1, "new_port": 1, "new_index": 1}],
        ),
        WIRE.pack("CONNECT", None, [{"context": 1, "vqpn": 17, "dest_pqpn": 5000, "peer": 1}]),
        WIRE.pack("KEYS", {"peer": 1}, [{"vrkey": 1, "prkey": 2}], more=True),
        WIRE.pack("KEYS", {"peer": 1}, [{"vrkey": 3, "prkey": 4}]),
        WIRE.pack("PLACES", None, [{"vqpn": 17, "qpn": 17, "new_qpn": 5000}] * 2, more=True),
        WIRE.pack("PLACES", None, [{"vqpn": 18, "qpn": 18, "new_qpn": 5001, "new_gid": bytes([1] * 16)}]),
        WIRE.pack("PLACES", None, [{"vqpn": 19, "qpn": 19, "new_qpn": 20, "vgid": _THERE, "gid": _THERE}]),
        WIRE.pack("RESUME"),
    ],
    [WIRE.pack(kind) for kind in ("INVENTORY", "LIST_CONTEXTS", "LIST_QPS", "LIST_MRS", "LIST_ADDRESSES")],
    [
        WIRE.pack("PREPARE", {"kind": 1, "context": 2}),
        WIRE.pack("QUIESCE", {"kind": 2, "timeout_ms": 100}, [{"context": 1, "vqpn": 17}]),
        WIRE.pack("UNDO"),
    ],
]


def test_no_message_reaches_beyond_itself(built: Built, tmp_path: Path) -> None:
    compiler = shutil.which("clang")
    assert compiler, "clang with libFuzzer is needed (apt install clang)"
    fuzzer = tmp_path / "fuzz"
    sources = [p for p in guest_sources("address") if p.name != "thread.c"]
    subprocess.run(
        [
            compiler, "-std=gnu11", "-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all",
            GUEST_INCLUDES, "-o", fuzzer, ROOT / "tests" / "guest" / "fuzz_messages.c", *sources,
            f"-L{built.directory}", f"-Wl,-rpath,{built.directory}", "-Wl,--no-as-needed",
            "-l:libibverbs.so.1", "-pthread",
        ],
        check=True,
    )  # fmt: skip
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, packets in enumerate(CONVERSATIONS):
        series = b"".join(struct.pack("<H", len(packet) | HELPED) + packet for packet in packets)
        (corpus / str(number)).write_bytes(series)
    called_at = tmp_path / "guest.sock"  # it can be called after a restore: otherwise it would not be parked
    called_at.touch()
    result = subprocess.run(
        [
            fuzzer, f"-max_total_time={SECONDS}", "-max_len=8192", "-timeout=20",
            "-print_coverage=1", "-print_final_stats=1", corpus,
        ],
        env={"ASAN_OPTIONS": "detect_leaks=0", "PATH": "/usr/bin:/bin", "MIGRRDMA_SOCKET": str(called_at)},
        cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS + 120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    units = re.search(r"stat::number_of_executed_units: (\d+)", result.stderr)
    assert units
    assert int(units[1]) > 1000
    reached = set(re.findall(r"^COVERED_FUNC: hits: \d+ edges: \S+ (\w+)", result.stderr, re.MULTILINE))
    assert reached >= REACHED
