"""Who may say what: certificates, names and addresses, garbage and too much of it, on every socket."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, Host, ends
from guest_process import PATIENT_S
from moves import Move

from migrrdma_runtime.agent.peers import certificates
from migrrdma_runtime.agent.peers.agent_config import TLSFiles
from migrrdma_runtime.agent.peers.grpc_transport import GrpcTransport
from migrrdma_runtime.base import gids
from migrrdma_runtime.base.errors import (
    AgentError,
    CertificateError,
    GuestError,
    MessageError,
    RefusedError,
    UnreachableError,
)
from migrrdma_runtime.wire import agent_messages
from migrrdma_runtime.wire.guest_messages import WIRE

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

HELLO = {"version": agent_messages.VERSION}


def issue(cluster: Cluster, name: str, addresses: list[str], ca: str = "ca") -> TLSFiles:
    """Credentials of a host that is none of the cluster's."""
    directory = cluster.directory / f"tls-{name}"
    certificates.issue(cluster.directory / ca, name, addresses, directory)
    return TLSFiles(directory / "ca.crt", directory / "agent.crt", directory / "agent.key")


async def ask(tls: TLSFiles, host: Host, name: str, request: Any, **changes: Any) -> Any:
    credentials = dataclasses.replace(certificates.load(tls), **changes)
    client = GrpcTransport(credentials)
    try:
        return await client.ask(host.agent.contact.address, name, request, 5)
    finally:
        await client.close()


def suspend_request(src: Host, peer: Host, **changes: Any) -> Any:
    """What the source's agent would ask the peer's."""
    return {
        "migration": "0" * 16,
        "source": {"name": src.name, "address": src.agent.contact.address},
        "key_digest": "0" * 64,
        "datagrams": [],
        "connections": [{"gid": peer.gid, "qpn": 0x21, "peer_gid": src.gid, "peer_qpn": 0x11}],
        **changes,
    }


# --- agents --------------------------------------------------------------------------------------------


def test_a_certificate_of_another_authority_is_not_accepted(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        host = await cluster.host("src", 2)
        certificates.make_ca(cluster.directory / "other", "other")
        foreign = issue(cluster, "evil", ["127.0.0.9"], ca="other")
        with pytest.raises(UnreachableError, match="do not accept each other's certificates"):
            await ask(foreign, host, "hello", HELLO)
        # Nor when it trusts our authority, while we do not trust its.
        ours = host.config.tls.ca.read_bytes()
        with pytest.raises(UnreachableError, match="do not accept each other's certificates"):
            await ask(foreign, host, "hello", HELLO, ca=ours)

    play(scenario)


def test_an_agent_at_an_address_that_is_not_in_its_certificate_is_not_spoken_to(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        host = cluster.prepare("src", 2)
        host.config = dataclasses.replace(host.config, listen=("127.0.0.7",))
        await host.start()
        client = GrpcTransport(certificates.load(issue(cluster, "x", ["127.0.0.9"])))
        with pytest.raises(UnreachableError, match="is not the one of that address"):
            await client.ask(f"127.0.0.7:{cluster.port}", "hello", HELLO, 5)
        await client.close()

    play(scenario)


def test_the_record_of_a_migration_is_not_replaced_by_another_agent_that_knows_its_name(play: Play) -> None:
    """As every partner of it does. What the record still has to tell, and to whom it answers, would be lost."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        third = await cluster.host("third", 5)
        await cluster.guest(move.peer, "p3", "d" * 16, ends(move.peer, 0x51, third, 0x61, 1))
        await move.checkpoint()
        await move.restore()
        migration = move.document["migration"]
        before = move.peer.state(migration)
        connections = [{"gid": move.peer.gid, "qpn": 0x51, "peer_gid": third.gid, "peer_qpn": 0x61}]
        request = suspend_request(third, move.peer, migration=migration, connections=connections)
        with pytest.raises(RefusedError, match=f"agent third is not the source of migration {migration}"):
            await ask(third.config.tls, move.peer, "suspend", request)
        assert move.peer.state(migration) == before == {"partner": "switched"}

    play(scenario)


def test_an_agent_cannot_speak_for_a_gid_that_is_not_its_own(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        insider = issue(cluster, "insider", ["127.0.0.9"])
        as_itself = {"name": "insider", "address": f"127.0.0.9:{cluster.port}"}
        request = suspend_request(move.src, move.peer, source=as_itself)
        with pytest.raises(
            RefusedError, match=r"speaks of GID 127.0.0.2, which neither its certificate names"
        ):
            await ask(insider, move.peer, "suspend", request)
        with pytest.raises(RefusedError, match="agent insider cannot speak as src"):
            await ask(insider, move.peer, "suspend", suspend_request(move.src, move.peer))
        elsewhere = {"name": "insider", "address": move.src.agent.contact.address}
        with pytest.raises(RefusedError, match="which its certificate lacks"):
            request = suspend_request(move.src, move.peer, source=elsewhere)
            await ask(insider, move.peer, "suspend", request)
        assert move.partner.asked == []

    play(scenario)


def test_what_the_administrator_says_of_a_gid_counts_more_than_a_certificate(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        """The mover's GID is an address of its container, which moves; [peers] says whose host it is on."""
        src, peer = cluster.prepare("src", 2), cluster.prepare("peer", 4)
        peer.config = dataclasses.replace(
            peer.config, peers=(("198.51.100.0/24", f"127.0.0.2:{cluster.port}"),)
        )
        await src.start()
        await peer.start()
        await cluster.pair(src, peer)
        gid = gids.from_address(ipaddress.ip_address("198.51.100.7"))
        tls = src.config.tls
        connections = [{"gid": peer.gid, "qpn": 0x21, "peer_gid": gid, "peer_qpn": 0x11}]
        # Allowed to ask, it is told that there is no such connection.
        with pytest.raises(GuestError, match="no process with the guest library has QP 0x21"):
            await ask(tls, peer, "suspend", suspend_request(src, peer, connections=connections))

    play(scenario)


@pytest.mark.parametrize("name", ["drain", "undo"])
def test_only_the_source_drains_and_resumes_its_partners(play: Play, name: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        request = {"migration": move.document["migration"], **({"seconds": 1} if name == "drain" else {})}
        with pytest.raises(RefusedError, match="agent dst is not the source of migration"):
            await ask(move.dst.config.tls, move.peer, name, request)
        assert "UNDO" not in move.partner.asked

    play(scenario)


@pytest.mark.parametrize("name", ["confirm", "prepare", "retract", "switch"])
def test_without_the_token_nobody_touches_a_partners_connections(play: Play, name: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        request = {"migration": move.document["migration"], "key": "0" * 64, "epoch": 1}
        if name == "prepare":
            one = {"gid": move.peer.gid, "qpn": 0x21, "new_peer_gid": move.dst.gid, "new_peer_qpn": 1}
            request["destination"] = {"name": "dst", "address": move.dst.agent.contact.address}
            request["connections"] = [{**one, "sq_psn": 0, "rq_psn": 0, "peer": "a" * 16}]
            request["keys"], request["places"] = {}, []
        with pytest.raises(RefusedError, match="that is not the key of migration"):
            await ask(move.dst.config.tls, move.peer, name, request)
        assert move.peer.state() == {"partner": "suspended"}

    play(scenario)


def test_one_partners_key_opens_nothing_else(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        from migrrdma_runtime.wire import tokens

        key = tokens.key_for(move.document["token"], "another-partner")
        request = {"migration": move.document["migration"], "key": key}
        with pytest.raises(RefusedError, match="not the key"):
            await ask(move.dst.config.tls, move.peer, "confirm", {**request, "epoch": 1})
        me = {"name": "dst", "address": move.dst.agent.contact.address}
        with pytest.raises(RefusedError, match="not the key"):
            claim = {**request, "attempt": "0" * 16, "destination": me}
            await ask(move.dst.config.tls, move.src, "claim", claim)

    play(scenario)


def test_garbage_on_the_agents_port_disturbs_nobody(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        for noise in (b"", b"\0" * 10_000, b"GET / HTTP/1.0\r\n\r\n", os.urandom(100_000)):
            reader, writer = await asyncio.open_connection(move.peer.address, cluster.port)
            with contextlib.suppress(OSError):  # it may throw us out at the first byte
                writer.write(noise)
                writer.write_eof()
                async with asyncio.timeout(PATIENT_S):
                    while await reader.read(1 << 16):
                        pass
            writer.close()
        await move.checkpoint()
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


@pytest.mark.parametrize(
    "request_bytes",
    [b"", b"\xff\xfe", b"[]", b'{"version": 1, "more": 2}', b'{"version": "1"}', b"[" * 100_000],
    ids=["nothing", "not UTF-8", "a list", "an unknown member", "a wrong type", "nested without end"],
)
def test_a_request_that_is_not_the_protocols_is_refused(
    play: Play, request_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Cluster) -> None:
        host = await cluster.host("src", 2)
        monkeypatch.setattr(agent_messages, "encode", lambda _: request_bytes)
        with pytest.raises(MessageError, match="hello from agent src"):
            await ask(host.config.tls, host, "hello", HELLO)

    play(scenario)


def test_a_message_of_20_megabytes_is_not_even_read(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(cluster: Cluster) -> None:
        host = await cluster.host("src", 2)
        monkeypatch.setattr(agent_messages, "encode", lambda _: b" " * (20 << 20))
        with pytest.raises(AgentError, match=r"(?i)larger"):
            await ask(host.config.tls, host, "hello", HELLO)

    play(scenario)


# --- certificates ----------------------------------------------------------------------------------------


def test_an_authority_is_never_overwritten(tmp_path: Path) -> None:
    certificates.make_ca(tmp_path, "one")
    before = (tmp_path / "ca.key").read_bytes()
    with pytest.raises(CertificateError, match="there is an authority in"):
        certificates.make_ca(tmp_path, "two")
    assert (tmp_path / "ca.key").read_bytes() == before


def test_keys_are_their_owners_alone(tmp_path: Path) -> None:
    certificates.make_ca(tmp_path / "ca", "one")
    certificates.issue(tmp_path / "ca", "host", ["192.0.2.1"], tmp_path / "tls")
    for key in (tmp_path / "ca/ca.key", tmp_path / "tls/agent.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def load_after(tmp_path: Path, change: Callable[[Path], object], days: int = 10) -> None:
    certificates.make_ca(tmp_path / "ca", "one")
    certificates.issue(tmp_path / "ca", "host", ["192.0.2.1"], tmp_path / "tls", days)
    change(tmp_path / "tls")
    certificates.load(TLSFiles(*(tmp_path / "tls" / name for name in ("ca.crt", "agent.crt", "agent.key"))))


def another_key(directory: Path) -> None:
    certificates.issue(directory.parent / "ca", "host", ["192.0.2.1"], directory.parent / "again")
    (directory.parent / "again" / "agent.key").rename(directory / "agent.key")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tls: (tls / "agent.crt").unlink(), r"cannot read .*agent.crt.*migrrdma agent ca issue"),
        (lambda tls: (tls / "agent.key").write_text("?"), r"agent.key holds no private key"),
        (lambda tls: (tls / "agent.crt").write_text("?"), r"agent.crt holds no certificate"),
        (another_key, r"agent.key is not the key of .*agent.crt"),
        (lambda tls: (tls / "ca.crt").rename(tls / "agent.crt"), r"is not the key of"),
    ],
)
def test_credentials_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    with pytest.raises(CertificateError, match=message):
        load_after(tmp_path, change)


def test_an_expired_certificate_is_refused_before_others_do(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"is valid from .* only: check this host's clock"):
        load_after(tmp_path, lambda _: None, days=0)


@pytest.mark.parametrize("addresses", [[], ["not-an-address"], ["10.0.0.256"]])
def test_a_certificate_needs_addresses(tmp_path: Path, addresses: list[str]) -> None:
    certificates.make_ca(tmp_path, "one")
    with pytest.raises(CertificateError):
        certificates.issue(tmp_path, "host", addresses, tmp_path / "tls")


# --- guests ----------------------------------------------------------------------------------------------


def dial(host: Host) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setblocking(False)
    connection.connect(str(host.config.guest_socket))
    return connection


def hello(**changes: Any) -> bytes:
    body = {"token": 0xABC, "pid": 1, "state": 1, "contexts": 1, "build_id": b"\1" * 20, **changes}
    return WIRE.pack("HELLO", body)


BAD_GREETINGS = {
    "nothing of ours": b"hello",
    "a header without its body": hello()[:24],
    "one byte too many": hello() + b"\0",
    "a wrong magic number": b"\0" + hello()[1:],
    "a version to come": hello()[:4] + b"\xff\xff" + hello()[6:],
    "an unknown type": hello()[:6] + b"\xff\xff" + hello()[8:],
    "a count of records that are not there": hello()[:12] + b"\xff\xff\xff\xff" + hello()[16:],
    "an answer": WIRE.pack("DONE", {"error": 0}),
    "a state that there is not": hello(state=77),
    "the largest datagram and more": b"\0" * (WIRE.constants["MIG_MESSAGE_MAX"] + 1),
}


@pytest.mark.parametrize("greeting", BAD_GREETINGS.values(), ids=BAD_GREETINGS.keys())
def test_a_guest_that_says_nonsense_is_hung_up_on(play: Play, greeting: bytes) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        loop = asyncio.get_running_loop()
        with dial(move.src) as connection:
            await loop.sock_sendall(connection, greeting)
            async with asyncio.timeout(PATIENT_S):
                assert await loop.sock_recv(connection, 100) == b""
        await move.checkpoint()

    play(scenario)


@pytest.mark.parametrize(
    "late",
    [b"\xff" * 50, WIRE.pack("DONE", {"error": 0}, ident=77), WIRE.pack("QPS", ident=1)],
    ids=["noise", "an answer to nothing", "an answer to nothing yet"],
)
def test_a_guest_that_speaks_out_of_turn_is_hung_up_on(play: Play, late: bytes) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.mover.tell(f"send {late.hex()}")
        await move.mover.until(lambda: {"disconnected": True} in move.mover.events)
        await move.mover.until(lambda: move.mover.events.count({"welcome": True}) == 2)
        await move.checkpoint()

    play(scenario)


def test_a_guest_cannot_pass_for_another_process(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        move.src.containers.members[os.getpid()] = "c1"
        loop = asyncio.get_running_loop()
        with dial(move.src) as connection:
            await loop.sock_sendall(connection, hello(token=int(move.mover.name, 16)))
            async with asyncio.timeout(PATIENT_S):
                assert await loop.sock_recv(connection, 100) == b""
        await move.checkpoint()

    play(scenario)


def test_every_user_of_a_container_reaches_the_guests_socket_and_no_one_the_runtimes(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        before = os.umask(0o077)
        try:
            host = await cluster.host("src", 2)
        finally:
            os.umask(before)
        guest, runtime = host.config.guest_socket, host.config.runtime_socket
        assert stat.S_IMODE(guest.stat().st_mode) == 0o666
        assert stat.S_IMODE(guest.parent.stat().st_mode) == 0o755
        assert stat.S_IMODE(runtime.stat().st_mode) == 0o600
        assert runtime.parent != guest.parent  # which containers have mounted
        assert stat.S_IMODE(host.config.database.stat().st_mode) == 0o600
        assert stat.S_IMODE(host.config.database.parent.stat().st_mode) == 0o700

    play(scenario)


# --- the runtime -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"?\n",
        b"{}\n",
        b'{"op": "format"}\n',
        b'{"op": "checkpoint"}\n',
        b'{"op": "checkpoint", "container": 7, "leave_running": false}\n',
        b'{"op": "report", "migration": "../../etc", "succeeded": true, "steps": []}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_request_of_the_runtime_that_makes_no_sense_gets_an_error(play: Play, line: bytes) -> None:
    async def scenario(cluster: Cluster) -> None:
        host = await cluster.host("src", 2)
        reader, writer = await asyncio.open_unix_connection(str(host.config.runtime_socket))
        writer.write(line)
        async with asyncio.timeout(PATIENT_S):
            answer = json.loads(await reader.readline())
        assert answer["error"]["message"]
        writer.write(b'{"op": "status"}\n')
        async with asyncio.timeout(PATIENT_S):
            assert json.loads(await reader.readline())["done"]["agent"]["name"] == "src"
        writer.close()

    play(scenario)


def test_the_status_shows_no_secret(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint()
        await move.restore()
        for host in cluster.hosts.values():
            with host.connect() as agent:
                status = await asyncio.to_thread(agent.status)
            assert status["migrations"]
            text = json.dumps(status)
            assert "key" not in text
            assert move.document["token"] not in text

    play(scenario)
