"""A checkpoint from another host, whatever is in its folder: copied whole, or refused by name with nothing left."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from fuzzing import Fuzzer, changed_bytes, changed_text

from migrrdma_runtime.base.errors import CheckpointDirError, ManifestError
from migrrdma_runtime.criu import images, stats
from migrrdma_runtime.wire import manifest

_MEASURED = bytes.fromhex("0a0c 08904e 10904e 1801 2001 2801")
STATS = struct.pack("<III", 0x55105940, 0x57093306, len(_MEASURED)) + _MEASURED
MANIFEST = manifest.seal({"migration": "0" * 16})
FILES = {
    "inventory.img": struct.pack("<I", 0x58313116) + b"\x10\0\0\0" + bytes(16),
    "pstree.img": b"\x16\x31\x31\x58" + bytes(20),
    "descriptors.json": b'["/dev/null", "pipe:[1]", "pipe:[2]"]',
    "migrrdma.img": b"MIGRRDMA" + bytes(24),
    "migrrdma.json": json.dumps(MANIFEST).encode(),
    "stats-dump": STATS,
    "pages-1.img": bytes(5000),
    "criu.work/dump.log": b"(00.000001) Error (x.c:1): no\n",
}
NAMES = (*FILES, "a", "..data", "x" * 255, "\udcff", "new\nline", "criu.work/deep/er", "criu.work")


def _fill(folder: Path, rng: random.Random) -> None:
    folder.mkdir()
    for name, content in FILES.items():
        if rng.random() < 0.05:
            continue
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(changed_bytes(rng, content) if rng.random() < 0.1 else content)
    for _ in range(rng.choice((0, 0, 1, 3))):
        path = folder / rng.choice(NAMES)
        with contextlib.suppress(OSError):  # what stands there already, or cannot be
            if rng.random() < 0.5 and not path.is_dir():
                path.unlink()
            match rng.randrange(6):
                case 0:
                    path.symlink_to(
                        rng.choice(("/etc/hostname", "inventory.img", ".", "..", "/dev/zero", "nowhere"))
                    )
                case 1:
                    os.mkfifo(path)
                case 2:
                    path.mkdir(parents=True)
                case 3:
                    with path.open("xb") as file:  # never through a link
                        file.truncate(rng.choice((0, 1, 1 << 40)))  # holes
                case 4:
                    deep = path
                    for _ in range(rng.choice((3, 40))):
                        deep = deep / "d"
                    deep.mkdir(parents=True)
                case 5:
                    with path.open("xb") as file:
                        file.write(rng.randbytes(rng.choice((0, 3, 5000))))
    if rng.random() < 0.3:
        with contextlib.suppress(IsADirectoryError):
            (folder / "migrrdma.json").unlink(missing_ok=True)
            (folder / "migrrdma.json").write_bytes(changed_text(rng, MANIFEST))


def test_a_checkpoint_is_copied_whole_or_refused_by_name(fuzzer: Fuzzer, tmp_path: Path) -> None:
    there, docker = tmp_path / "there", tmp_path / "docker"
    copied = 0

    def one(rng: random.Random) -> None:
        nonlocal copied
        for folder in (there, docker):
            shutil.rmtree(folder, ignore_errors=True)
        docker.mkdir()
        there.mkdir()
        _fill(there / "one", rng)
        try:
            found = images.find(there, rng.choice((None, "one", "two")))
            with images.examine(found) as source:
                images.copy(source, docker / "checkpoints/one", replace=False, progress=lambda _: None)
        except CheckpointDirError:
            assert [path for path in docker.rglob("*") if path.name != "checkpoints"] == []
        else:
            copied += 1
            for file in source.files:
                ours = docker / "checkpoints/one" / file
                assert ours.stat().st_size == (found / file).stat().st_size
                if ours.stat().st_size < 1 << 20:
                    assert ours.read_bytes() == (found / file).read_bytes()
        with contextlib.suppress(ManifestError):
            manifest.read(str(there / "one"))
        stats.dump_steps(str(there / "one"), 0)
        stats.restore_steps(str(there / "one"), 0)

    fuzzer.run(one)
    assert copied > fuzzer.rounds / 20, "most were refused: nothing was shown"


def test_a_folder_deeper_than_anything_real_is_refused_by_name(tmp_path: Path) -> None:
    _fill(tmp_path / "one", random.Random(0))  # noqa: S311
    here = os.open(tmp_path / "one", os.O_RDONLY)
    for _ in range(3000):  # longer than a path may be
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        refused = pytest.raises(CheckpointDirError, match="deeper than a checkpoint's folders go")
        with refused, images.examine(tmp_path / "one"):
            pass
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "one"], check=True)  # too deep for Python as well
