"""Certificates from their making to their end: on record, renewed, for keys that stay where they are, taken back."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cluster import Cluster, Host
from cryptography import x509
from moves import Move

from migrrdma_runtime.agent.peers import authority, certificates
from migrrdma_runtime.agent.peers.agent_config import TLSFiles
from migrrdma_runtime.agent.peers.grpc_transport import GrpcTransport
from migrrdma_runtime.base.errors import CertificateError, MigrRDMAError, UnreachableError
from migrrdma_runtime.wire import agent_messages

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

HELLO = {"version": agent_messages.VERSION}


def files(directory: Path) -> TLSFiles:
    return TLSFiles(*(directory / name for name in ("ca.crt", "agent.crt", "agent.key")))


def make(tmp_path: Path, host: str = "one", days: int = 10) -> Path:
    """An authority, if there is none yet, and a host's key and certificate."""
    if not (tmp_path / "ca").exists():
        certificates.make_ca(tmp_path / "ca", "test")
    certificates.issue(tmp_path / "ca", host, ["192.0.2.1", "2001:db8::1"], tmp_path / host, days)
    return tmp_path / host


def distribute(cluster: Cluster, *hosts: Host) -> None:
    """What an administrator does after ``ca revoke``: copy the list."""
    for host in hosts:
        shutil.copy(cluster.directory / "ca/ca.crl", host.config.tls.deny_list)


# --- made, and made anew -----------------------------------------------------------------------------------


def test_the_authority_knows_what_it_has_made(tmp_path: Path) -> None:
    made = [certificates.read_certificate(make(tmp_path, host) / "agent.crt") for host in ("b", "a", "b")]
    known = authority.issued(tmp_path / "ca")
    assert {one.serial for one in known} == {one.serial_number for one in made}
    assert sorted(one.host for one in known) == ["a", "b", "b"]
    assert all(one.is_valid and one.addresses == ("192.0.2.1", "2001:db8::1") for one in known)


def test_a_certificate_is_renewed_for_the_same_key(tmp_path: Path) -> None:
    home = make(tmp_path, days=0)  # it has expired
    with pytest.raises(CertificateError, match="is valid from"):
        certificates.load(files(home))
    authority.renew(tmp_path / "ca", "one", home)
    assert certificates.load(files(home)).identity == certificates.Identity(
        "one", frozenset({"192.0.2.1", "2001:db8::1"})
    )
    with pytest.raises(CertificateError, match="no certificate for two"):
        authority.renew(tmp_path / "ca", "two", home)


def test_a_key_is_made_where_it_stays(tmp_path: Path) -> None:
    certificates.make_ca(tmp_path / "ca", "test")
    host, parcel = tmp_path / "host", tmp_path / "parcel"
    authority.request("one", host)
    key = (host / "agent.key").read_bytes()
    authority.issue_for_request(tmp_path / "ca", "one", ["192.0.2.1"], host / "agent.csr", parcel)
    assert sorted(path.name for path in parcel.iterdir()) == ["agent.crt", "ca.crl", "ca.crt"]
    for path in parcel.iterdir():
        shutil.copy(path, host)
    assert certificates.load(files(host)).identity.name == "one"
    # The next one goes elsewhere: the key in use stays until there is a certificate for its successor.
    with pytest.raises(CertificateError, match="there is a key in"):
        authority.request("one", host)
    assert (host / "agent.key").read_bytes() == key


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"?",
        lambda pem: pem.replace(pem[100:104], b"AAAA"),
        lambda _: b"",
    ],
    ids=["no request", "a changed one", "an empty one"],
)
def test_a_request_that_is_none_gets_no_certificate(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    certificates.make_ca(tmp_path / "ca", "test")
    authority.request("one", tmp_path / "host")
    csr = tmp_path / "host/agent.csr"
    csr.write_bytes(damage(csr.read_bytes()))
    with pytest.raises(CertificateError, match=r"agent\.csr (holds no|is damaged)"):
        authority.issue_for_request(tmp_path / "ca", "one", ["192.0.2.1"], csr, tmp_path / "out")
    assert authority.issued(tmp_path / "ca") == []


# --- keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o700 | 0o044])
def test_a_key_that_others_may_read_is_refused_by_name(tmp_path: Path, mode: int) -> None:
    home = make(tmp_path)
    (home / "agent.key").chmod(mode)
    with pytest.raises(
        CertificateError, match=rf"agent.key is a secret.*mode {mode:04o}.*chmod 600 .*agent.key"
    ):
        certificates.load(files(home))
    (tmp_path / "ca/ca.key").chmod(mode)
    with pytest.raises(CertificateError, match=r"ca.key is a secret"):
        make(tmp_path)


def test_a_key_that_another_user_owns_is_refused_by_name(tmp_path: Path) -> None:
    home = make(tmp_path)
    shutil.chown(home / "agent.key", 4711)
    with pytest.raises(CertificateError, match=r"agent.key is a secret.*owner 4711"):
        certificates.load(files(home))


# --- taken back --------------------------------------------------------------------------------------------


def test_a_revoked_agent_is_not_listened_to_from_the_next_request_on(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, peer = await cluster.host("src", 2), await cluster.host("peer", 4)
        client, address = GrpcTransport(certificates.load(peer.config.tls)), src.agent.contact.address
        try:
            await client.ask(address, "hello", HELLO, 5)
            authority.revoke(cluster.directory / "ca", "peer")
            distribute(cluster, src)
            for _ in range(2):  # over the connection that is open
                with pytest.raises(UnreachableError, match=r"certificate of agent peer .* was revoked"):
                    await client.ask(address, "hello", HELLO, 5)
        finally:
            await client.close()
        # A new one is listened to, and so is everybody else.
        certificates.issue(cluster.directory / "ca", "peer", [peer.address], peer.config.tls.key.parent)
        for host in (peer, src):
            client = GrpcTransport(certificates.load(host.config.tls))
            await client.ask(address, "hello", HELLO, 5)
            await client.close()

    play(scenario)


def test_a_revoked_agent_is_not_asked(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        await move.checkpoint(succeeded=False)  # the connection to it is open
        await move.both_go_on_as_before()
        suspended = move.peer.steps.count("partner: suspend")
        authority.revoke(cluster.directory / "ca", "peer")
        distribute(cluster, move.src)
        with pytest.raises(MigrRDMAError, match=r"certificate of the agent at 127.0.0.4:\d+ .* was revoked"):
            await move.checkpoint()
        assert move.peer.steps.count("partner: suspend") == suspended
        certificates.issue(
            cluster.directory / "ca", "peer", [move.peer.address], move.peer.config.tls.key.parent
        )
        await move.peer.restart()
        await move.checkpoint()
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_many_ask_a_new_agent_at_once_while_some_are_revoked(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, peer = await cluster.host("src", 2), await cluster.host("peer", 4)
        make(cluster.directory, "gone")
        authority.revoke(cluster.directory / "ca", "gone")
        distribute(cluster, src)
        contact = peer.agent.contact
        await asyncio.gather(*(src.agent.ask(contact, "hello", HELLO) for _ in range(8)))
        make(cluster.directory, "gone")
        authority.revoke(cluster.directory / "ca", "gone")
        distribute(cluster, src)
        await asyncio.gather(*(src.agent.ask(contact, "hello", HELLO) for _ in range(8)))

    play(scenario)


def test_a_list_that_is_damaged_changes_nothing(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, peer = await cluster.host("src", 2), await cluster.host("peer", 4)
        authority.revoke(cluster.directory / "ca", "peer")
        distribute(cluster, src)
        client, address = GrpcTransport(certificates.load(peer.config.tls)), src.agent.contact.address
        try:
            certificates.make_ca(cluster.directory / "other", "other")
            with pytest.raises(UnreachableError, match="was revoked"):
                await client.ask(address, "hello", HELLO, 5)
            for content in (b"", b"?", (cluster.directory / "other/ca.crl").read_bytes()):
                src.config.tls.deny_list.write_bytes(content)
                with pytest.raises(UnreachableError, match="was revoked"):
                    await client.ask(address, "hello", HELLO, 5)
        finally:
            await client.close()

    play(scenario)


def test_an_agent_that_starts_with_a_damaged_list_has_nothing_to_do_with_others(play: Play) -> None:
    """Nobody knows who was revoked. Its own guests and commands go on, and so do the others when it is mended."""

    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        deny_list = move.src.config.tls.deny_list
        deny_list.write_bytes(b"?")
        await move.src.restart()
        with pytest.raises(
            MigrRDMAError, match=r"ca\.crl holds no list .* no other agent is asked .* Copy ca\.crl"
        ):
            await move.checkpoint()
        client, address = (
            GrpcTransport(certificates.load(move.peer.config.tls)),
            move.src.agent.contact.address,
        )
        try:
            with pytest.raises(UnreachableError, match=r"ca\.crl holds no list .* Copy ca\.crl"):
                await client.ask(address, "hello", HELLO, 5)
        finally:
            await client.close()
        with move.src.connect() as agent:
            assert len((await asyncio.to_thread(agent.status))["guests"]) == 1
        shutil.copy(cluster.directory / "ca/ca.crl", deny_list)
        await move.checkpoint()
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_a_host_or_a_serial_number_is_revoked(tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    for host in ("a", "a", "b", "c"):
        make(tmp_path, host)
    [serial] = [one.serial for one in authority.issued(ca) if one.host == "b"]
    assert len(authority.revoke(ca, "a")) == 2
    assert [one.serial for one in authority.revoke(ca, f"{serial:x}")] == [serial]
    assert {one.host: one.revoked for one in authority.issued(ca)} == {"a": True, "b": True, "c": False}
    for who in ("a", "nosuch", f"{serial:x}"):
        with pytest.raises(CertificateError, match=f"no valid certificate for {who}"):
            authority.revoke(ca, who)
    with pytest.raises(CertificateError, match="no certificate for a that is not revoked"):
        authority.renew(ca, "a", tmp_path / "a")
    with pytest.raises(CertificateError, match=r"own certificate, .* was revoked"):
        shutil.copy(ca / "ca.crl", tmp_path / "b")
        certificates.load(files(tmp_path / "b"))
    found = x509.load_pem_x509_crl((ca / "ca.crl").read_bytes())
    assert len(list(found)) == 3


def test_an_authority_of_before_there_were_lists_goes_on(tmp_path: Path) -> None:
    certificates.make_ca(tmp_path / "ca", "test")
    (tmp_path / "ca/ca.crl").unlink()
    home = make(tmp_path)
    assert (tmp_path / "ca/ca.crl").exists()
    (home / "ca.crl").unlink()  # likewise its hosts
    certificates.load(files(home))
