"""``migrrdma migration adopt`` as its users see it, on agents that run."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from guest_process import PATIENT_S
from moves import Move
from typer.testing import CliRunner

from migrrdma_runtime.agent.roles.records import PartnerData
from migrrdma_runtime.cli import app
from migrrdma_runtime.criu import images
from migrrdma_runtime.wire import manifest

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


def make_checkpoint(path: Path) -> Path:
    """A folder that looks like what CRIU and runc leave, but for the manifest."""
    path.mkdir(parents=True)
    (path / "inventory.img").write_bytes(struct.pack("<I", 0x58313116) + b"inventory")
    (path / "pstree.img").write_bytes(b"pstree")
    (path / "descriptors.json").write_text("[]")
    return path


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Coroutine[Any, Any, tuple[int, str]]]:
    """Run it on one of the cluster's hosts; returns how it ends, and what it prints or its error."""

    async def run(host: str, *arguments: str) -> tuple[int, str]:
        (tmp_path / "config.toml").write_text(f'run_dir = "{tmp_path}/{host}/run"\n')
        monkeypatch.setenv("MIGRRDMA_CONFIG", str(tmp_path / "config.toml"))
        words = ["migration", "adopt", *arguments]
        result = await asyncio.to_thread(CliRunner().invoke, app, words)
        return result.exit_code, result.output or str(result.exception)

    return run


async def parked(cluster: Cluster, folder: Path) -> Move:
    """A checkpoint of which the partner has heard, and whose host is gone."""
    move = await Move.begin(cluster)
    await move.checkpoint()

    def has_heard() -> bool:
        record = move.peer.agent.store.find(move.document["migration"], PartnerData)
        return record is not None and record.data.parked

    async with asyncio.timeout(PATIENT_S):
        while not has_heard():
            await asyncio.sleep(0.02)  # an agent's own state: no message tells of it
    manifest.write(str(make_checkpoint(folder)), move.document)
    return move


def test_a_checkpoint_is_adopted_and_says_so(
    play: Play, tmp_path: Path, command: Callable[..., Coroutine[Any, Any, tuple[int, str]]]
) -> None:
    async def scenario(cluster: Cluster) -> None:
        folder = tmp_path / "shared" / "before-move"
        move = await parked(cluster, folder)
        code, said = await command("dst", str(folder), "--fenced", "src")
        assert (code, "it is not gone" in said) == (1, True), said
        assert manifest.read(str(folder)) == move.document
        await move.src.stop()
        code, said = await command("dst", str(folder.parent), "--fenced", "src", "--json")
        migration = move.document["migration"]
        assert code == 0, said
        assert json.loads(said) == {
            "migration": migration, "checkpoint": str(folder), "fenced": "src", "adopted": True,
        }  # fmt: skip
        code, said = await command("dst", str(folder), "--fenced", "src")
        assert (code, said.splitlines()[0]) == (
            0,
            f"migration {migration} is this host's to decide about, in the place of src",
        )
        move.document = manifest.read(str(folder))
        await move.restore()
        await move.both_go_on_after_the_move()
        code, said = await command("dst", str(folder), "--fenced", "src")
        assert (code, "was adopted here, and is" in said) == (1, True), said

    play(scenario)


def test_the_manifest_is_written_where_it_was_judged(
    play: Play,
    tmp_path: Path,
    command: Callable[..., Coroutine[Any, Any, tuple[int, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever may write to the folder around it can give its name to another."""
    folder, judged, judge = tmp_path / "before-move", tmp_path / "judged", images.require_owned

    def exchanged_thereafter(found: images.CheckpointDir, trusted: str) -> None:
        judge(found, trusted)
        folder.rename(judged)
        make_checkpoint(folder)

    async def scenario(cluster: Cluster) -> None:
        move = await parked(cluster, folder)
        await move.src.stop()
        monkeypatch.setattr(images, "require_owned", exchanged_thereafter)
        code, said = await command("dst", str(folder), "--fenced", "src")
        assert code == 0, said
        assert manifest.read(str(folder)) is None
        assert manifest.read(str(judged)) != move.document

    play(scenario)


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        ([], 2, ""),
        (["/nonexistent", "--fenced", "src"], 1, "is not a directory"),
        (["{empty}", "--fenced", "src"], 1, r"holds no checkpoint"),
        (["{plain}", "--fenced", "src"], 1, "holds nothing of RDMA"),
        (["{plain}", "--fenced", "no name"], 2, ""),
        (["{plain}"], 2, ""),
    ],
)
def test_what_is_used_wrongly_is_refused_by_name(
    tmp_path: Path,
    command: Callable[..., Coroutine[Any, Any, tuple[int, str]]],
    words: list[str],
    code: int,
    why: str,
) -> None:
    (tmp_path / "empty").mkdir()
    make_checkpoint(tmp_path / "plain")
    folders = {name: str(tmp_path / name) for name in ("empty", "plain")}
    got, said = asyncio.run(command("dst", *(one.format(**folders) for one in words)))
    assert got == code, said
    assert why in said
