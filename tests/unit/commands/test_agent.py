"""``migrrdma agent`` and ``migrrdma status`` as their users see them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cluster import Cluster
from guest_process import PATIENT_S
from moves import Move
from typer.testing import CliRunner

from migrrdma_runtime.agent.local.objections import MOST_SHOWN
from migrrdma_runtime.agent.peers import certificates
from migrrdma_runtime.agent.peers.agent_config import TLSFiles
from migrrdma_runtime.base.errors import GuestError
from migrrdma_runtime.cli import app

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]


def test_an_authority_and_a_hosts_certificate_are_made_by_two_commands(tmp_path: Path) -> None:
    run = CliRunner().invoke
    made = run(app, ["agent", "ca", "init", "--ca", f"{tmp_path}/ca"])
    assert made.exit_code == 0, made.output
    assert "keep" in made.output
    addresses = ["--address", "10.78.0.11", "--address", "2001:db8::11"]
    issued = run(
        app, ["agent", "ca", "issue", "src", *addresses, "--ca", f"{tmp_path}/ca", "--out", f"{tmp_path}/src"]
    )
    assert issued.exit_code == 0, issued.output
    assert "copy them to /etc/migrrdma/tls on src" in issued.output
    files = [tmp_path / "src" / name for name in ("ca.crt", "agent.crt", "agent.key")]
    identity = certificates.load(TLSFiles(*files)).identity
    assert identity == certificates.Identity("src", frozenset({"10.78.0.11", "2001:db8::11"}))


def test_a_certificate_is_asked_for_made_renewed_listed_and_revoked(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["agent", "ca", *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    ca, host = ["--ca", f"{tmp_path}/ca"], tmp_path / "src"
    run("init", *ca)
    assert "which stays here" in run("request", "src", "--out", str(host))
    address = ["--address", "10.78.0.11"]
    made = run("issue", "src", *address, *ca, "--request", f"{host}/agent.csr", "--out", f"{tmp_path}/parcel")
    assert "agent.key" not in made
    assert not (tmp_path / "parcel/agent.key").exists()
    assert "copy them to /etc/migrrdma/tls on src" in run("renew", "src", *ca, "--out", str(host))
    files = TLSFiles(*(host / name for name in ("ca.crt", "agent.crt", "agent.key")))
    assert certificates.load(files).identity.name == "src"
    first, second = json.loads(run("list", *ca, "--json"))
    assert first["host"] == second["host"] == "src"
    assert first["valid"]
    assert first["serial"] != second["serial"]
    revoked = run("revoke", second["serial"], *ca)
    assert second["serial"] in revoked
    assert f"copy {tmp_path}/ca/ca.crl" in revoked
    lines = run("list", *ca).splitlines()
    assert [line.split()[4] for line in lines] == ["valid", "revoked"]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[str]]:
    """Run a command on one of the cluster's hosts; returns what it prints, or its error."""

    async def run(host: str, *arguments: str) -> str:
        (tmp_path / "config.toml").write_text(f'run_dir = "{tmp_path}/{host}/run"\n')
        monkeypatch.setenv("MIGRRDMA_CONFIG", str(tmp_path / "config.toml"))
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        return result.output or str(result.exception)

    return run


def test_what_was_made_is_told_to_programs(tmp_path: Path) -> None:
    run = CliRunner().invoke
    made = json.loads(run(app, ["agent", "ca", "init", "--ca", f"{tmp_path}/ca", "--json"]).stdout)
    assert made == {"directory": f"{tmp_path}/ca", "name": "migrrdma cluster"}
    issue = ["agent", "ca", "issue", "src", "--address", "10.78.0.11", "--ca", f"{tmp_path}/ca", "--json"]
    issued = json.loads(run(app, [*issue, "--out", f"{tmp_path}/src"]).stdout)
    assert issued == {
        "host": "src",
        "addresses": ["10.78.0.11"],
        "directory": f"{tmp_path}/src",
        "days": 825,
    }


def test_the_status_says_in_words_how_it_stands(play: Play, command: Callable[..., Awaitable[str]]) -> None:
    async def shown(host: str) -> str:
        return await command(host, "status")

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        assert "container c1: running" in await shown("src")
        await move.checkpoint()
        migration = move.document["migration"]
        assert (
            f"migration {migration} checkpoint, container c1 as source: waits to be restored"
            in await shown("src")
        )
        assert f"migration {migration} from src, as partner: suspended" in await shown("peer")
        await move.restore()
        assert "to dst, container c1 as source: " in await shown("src")
        assert "from src, container c2 as destination: " in await shown("dst")
        assert "from src, as partner: switched over" in await shown("peer")

    play(scenario)


def test_the_status_says_what_would_refuse_a_checkpoint(
    play: Play, command: Callable[..., Awaitable[str]]
) -> None:
    """For people and programs; and of a process that does not answer, which reasons it has is not known."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await cluster.guest(move.src, "c3", "e" * 16, [], reasons=["a memory window", "an XRC domain"])
        lines: list[str] = []
        async with asyncio.timeout(PATIENT_S):
            while not lines or any("does not answer" in line for line in lines):
                lines = (await command("src", "status")).splitlines()
        [at] = [number for number, line in enumerate(lines) if "container c3: running" in line]
        assert lines[at + 1 : at + 3] == [
            "  would refuse a checkpoint: a memory window",
            "  would refuse a checkpoint: an XRC domain",
        ]
        assert sum("refuse" in line for line in lines) == 2

        os.kill(move.mover.pid, signal.SIGSTOP)
        try:
            told = json.loads(await command("src", "status", "--json"))
            [stopped] = [one for one in told["guests"] if one["container"] == "c1"]
            assert stopped["reasons"] is None
            assert "does not answer: is it stopped?" in await command("src", "status")
        finally:
            os.kill(move.mover.pid, signal.SIGCONT)

    play(scenario)


def test_a_container_cannot_keep_the_status_from_telling_of_others(
    play: Play, command: Callable[..., Awaitable[str]]
) -> None:
    """Each of up to 1,024 processes may send 1,024 reasons: together more than the command reads, or anybody."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        for number in range(9):
            # Of characters that take six times their length as JSON.
            lies = [f"{count} " + "\u00ff" * 70 for count in range(80)]
            await cluster.guest(move.src, "liar", f"{0xA0 + number:016x}", [], reasons=lies)
        await cluster.guest(move.src, "c3", "e" * 16, [], reasons=["a memory window"])
        lines: list[str] = []
        async with asyncio.timeout(PATIENT_S):
            while not lines or any("does not answer" in line for line in lines):
                lines = (await command("src", "status")).splitlines()
        assert "  would refuse a checkpoint: a memory window" in lines
        told = json.loads(await command("src", "status", "--json"))
        reasons = [one["reasons"] for one in told["guests"] if one["container"] == "liar"]
        assert len(reasons) == 9
        assert all(reasons)
        assert sum(len(one) for one in reasons) <= MOST_SHOWN + 9
        assert any("and 80 more" in one[-1] for one in reasons)

    play(scenario)


def test_the_timeline_tells_steps_blackout_and_downtime(
    play: Play, command: Callable[..., Awaitable[str]]
) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        await move.restore()
        lines = (await command("dst", "timeline")).splitlines()
        steps = [line.split()[:2] for line in lines[1:-2]]
        assert steps[:3] == [["src", "suspend"], ["src", "drain"], ["src", "dump"]]
        assert steps[-2:] == [["dst", "commit"], ["dst", "switch"]]
        assert "blackout, as peer saw it" in lines[-2]
        assert "downtime of the process" in lines[-1]
        migration = move.document["migration"]
        found = json.loads(await command("dst", "timeline", "--json", migration[:6]))
        assert found["migration"] == migration
        assert 0 < found["downtime"] < found["blackout"]["peer"]
        # The source knows its own steps only, and no blackout.
        assert "drain" in await command("src", "timeline")
        assert "migrrdma status lists" in await command("dst", "timeline", "nosuch")

    play(scenario)


def test_what_waits_is_listed_and_shown_with_the_way_out(
    play: Play, command: Callable[..., Awaitable[str]]
) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        migration = move.document["migration"]
        listed = (await command("src", "migration", "list")).splitlines()
        assert listed[0].split()[:3] == [migration, "source", "parked"]
        assert listed[1].strip() == "waits for somebody to restore the checkpoint"
        shown = await command("src", "migration", "show", migration[:8])
        assert f"migration {migration} as source: waits to be restored" in shown
        assert f"peer at 127.0.0.4:{cluster.port}" in shown
        assert "drain on src: " in shown
        assert any(line.endswith(f" migrrdma migration abandon {migration}") for line in shown.splitlines())
        assert "knows no migration zz" in await command("src", "migration", "show", "zz")
        given_up = json.loads(await command("src", "migration", "abandon", migration, "--json"))
        assert given_up == {"migration": migration, "role": "source", "abandoned": True}
        assert await command("src", "migration", "list") == "no migration waits on this host\n"
        [ended] = json.loads(await command("src", "migration", "list", "--all", "--json"))
        assert (ended["state"], ended["reason"]) == ("abandoned", "given up by a person")

    play(scenario)


def test_an_undone_checkpoint_says_why_and_how_far_it_came(
    play: Play, command: Callable[..., Awaitable[str]]
) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.mover.tell("fault PARK \x1b[2Jno")
        with pytest.raises(GuestError):
            await move.checkpoint()
        [record] = move.src.agent.store.every()
        shown = await command("src", "migration", "show", record.id)
        assert "as source: undone" in shown
        assert "\\x1b[2Jno" in shown
        assert "\x1b" not in shown
        assert "suspend on src" in shown
        assert "drain on src" in shown

    play(scenario)
