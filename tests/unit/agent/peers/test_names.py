"""An agent's name is what its certificate says, at both ends, and not what it says itself."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import ipaddress
from collections.abc import Awaitable, Callable

import pytest
from cluster import Cluster, Host, ends
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from moves import Move

from migrrdma_runtime.agent.peers import certificates
from migrrdma_runtime.agent.peers.certificates import Credentials
from migrrdma_runtime.agent.peers.grpc_transport import GrpcTransport
from migrrdma_runtime.base.errors import CertificateError, MigrRDMAError, UnreachableError
from migrrdma_runtime.wire import agent_messages, manifest

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

HELLO = {"version": agent_messages.VERSION}


async def impostor(cluster: Cluster) -> Host:
    """An agent with a certificate of the cluster that says it is another one, ``peer``."""
    host = await cluster.host("evil", 6)
    host.agent.identity = dataclasses.replace(host.agent.identity, name="peer")
    return host


def test_connections_do_not_go_to_who_only_says_that_it_is_another(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        src, evil = await cluster.host("src", 2), await impostor(cluster)
        await cluster.guest(src, "c1", "a" * 16, ends(src, 0x11, evil, 0x21, 1))
        with src.connect() as agent, pytest.raises(MigrRDMAError, match=r"is not peer .*ertificate"):
            await asyncio.to_thread(agent.checkpoint, "c1", leave_running=False)
        assert "partner: suspend" not in evil.steps
        assert src.state() == {}

    play(scenario)


def test_a_partners_key_does_not_go_to_who_is_found_at_its_address(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        move = await Move.begin(cluster)
        evil = await impostor(cluster)
        await move.checkpoint()
        document = {key: value for key, value in move.document.items() if key not in ("version", "digest")}
        [partner] = document["partners"]
        honest, partner["address"] = partner["address"], f"{evil.address}:{cluster.port}"
        move.document = manifest.seal(document)
        with pytest.raises(MigrRDMAError, match=r"is not peer .*ertificate"):
            await move.restore()
        partner["address"] = honest
        move.document = manifest.seal(document)
        await move.restore()
        await move.both_go_on_after_the_move()

    play(scenario)


def test_an_agent_is_known_by_its_name_wherever_it_is(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        host = cluster.prepare("src", 2)
        host.config = dataclasses.replace(host.config, listen=("127.0.0.7",))
        await host.start()
        client, address = GrpcTransport(certificates.load(host.config.tls)), f"127.0.0.7:{cluster.port}"
        try:
            with pytest.raises(UnreachableError, match="is not the one of that address"):
                await client.ask(address, "hello", HELLO, 5)
            assert (await client.ask(address, "hello", HELLO, 5, "src"))["name"] == "src"
            for other in ("dst", "sr", "*", ".", "a" * 255, "127.0.0.2x"):
                with pytest.raises(UnreachableError, match="is not "):
                    await client.ask(address, "hello", HELLO, 5, other)
        finally:
            await client.close()
        with pytest.raises(UnreachableError, match="is not dst: it is src"):
            await host.agent.ask(dataclasses.replace(host.agent.contact, name="dst"), "hello", HELLO)

    play(scenario)


def signed(
    cluster: Cluster, good: Credentials, common: list[str], names: list[x509.GeneralName]
) -> Credentials:
    """Credentials with a certificate that the authority has signed, but not with our command."""
    home = cluster.directory / "ca"
    authority = x509.load_pem_x509_certificate((home / "ca.crt").read_bytes())
    secret = serialization.load_pem_private_key((home / "ca.key").read_bytes(), None)
    assert isinstance(secret, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one) for one in common]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(secret, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return dataclasses.replace(
        good,
        certificate=certificate.public_bytes(pem),
        key=key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


@pytest.mark.parametrize("common", [["src"], [], ["src", "evil"], ["e\x1bvil"]], ids=repr)
def test_a_certificate_that_names_no_one_host_is_nobodys(play: Play, common: list[str]) -> None:
    async def scenario(cluster: Cluster) -> None:
        host = await cluster.host("src", 2)
        names = [x509.DNSName("evil"), x509.IPAddress(ipaddress.ip_address("127.0.0.6"))]
        odd = signed(cluster, certificates.load(host.config.tls), common, names)
        client = GrpcTransport(odd)
        try:
            with pytest.raises(UnreachableError, match="the caller's certificate names no one host"):
                await client.ask(host.agent.contact.address, "hello", HELLO, 5)
        finally:
            await client.close()

    play(scenario)


@pytest.mark.parametrize("host", ["*.example", "10.0.0.1", "2001:db8::1", "a b", "a\x1b[2J", "", ".", "é"])
def test_no_certificate_is_made_for_what_is_no_name(play: Play, host: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        with pytest.raises(CertificateError, match="name"):
            certificates.issue(cluster.directory / "ca", host, ["127.0.0.9"], cluster.directory / "tls")

    play(scenario)
