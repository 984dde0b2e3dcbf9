"""The cluster's certificate authority, the agents' certificates, and what one of them says.

An agent's certificate names its host and the addresses it speaks for: those that others reach it at, and
those that are the GIDs of its RDMA devices. What an agent may say about a connection follows from them.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from migrrdma_runtime.agent.peers.agent_config import TLSFiles
from migrrdma_runtime.agent.peers.deny_list import DenyList
from migrrdma_runtime.base import files, gids
from migrrdma_runtime.base.errors import CertificateError
from migrrdma_runtime.base.escaping import printable
from migrrdma_runtime.wire import agent_messages

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

ISSUED = "issued"
"""Where in its directory an authority keeps what it has made."""
CA_DAYS = 3650
AGENT_DAYS = 825
_PEM = serialization.Encoding.PEM
_PUBLIC = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
_CLOCK_SKEW = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Identity:
    """Whose certificate it is."""

    name: str
    addresses: frozenset[str]

    def speaks_for(self, gid: str) -> bool:
        """Whether the GID is one of its addresses."""
        return str(gids.address(gid)) in self.addresses


@dataclass(frozen=True)
class Credentials:
    """What a TLS connection is made with, and who we are by it."""

    identity: Identity
    files: TLSFiles
    ca: bytes
    certificate: bytes
    key: bytes
    denied: DenyList
    """Whose certificates are not accepted any more."""


def make_ca(directory: Path, name: str, days: int = CA_DAYS) -> None:
    """Make the cluster's authority; an existing one is never overwritten."""
    if (directory / "ca.key").exists():
        raise CertificateError(
            f"there is an authority in {directory} already; its certificates would be void"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(subject, subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_key(directory / "ca.key", key)
    write(directory / "ca.crt", certificate.public_bytes(_PEM), 0o644)
    write_list(directory, frozenset())


def issue(ca: Path, host: str, addresses: list[str], out: Path, days: int = AGENT_DAYS) -> None:
    """Make ``agent.key`` and ``agent.crt`` for a host, with what it must know of the authority beside them."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = sign(ca, host, addresses, key.public_key(), days)
    write_key(out / "agent.key", key)
    hand_out(ca, certificate, out)


def sign(
    ca: Path, host: str, addresses: list[str], key: ec.EllipticCurvePublicKey, days: int
) -> x509.Certificate:
    """Make the certificate of a host's key; the authority keeps a copy, under its serial number."""
    authority = read_certificate(ca / "ca.crt")
    authority_key = read_authority_key(ca)
    if not addresses:
        raise CertificateError(
            f"no address for {host}: name those of its RDMA devices and where it is reached"
        )
    require_name(host)
    names: list[x509.GeneralName] = [x509.DNSName(host)]
    try:
        names += [x509.IPAddress(ipaddress.ip_address(one)) for one in addresses]
    except ValueError as error:
        raise CertificateError(f"{error} (of host {host})") from error
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _builder(subject, authority.subject, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    # First: what is not on record could not be revoked.
    write(ca / ISSUED / f"{certificate.serial_number:x}.crt", certificate.public_bytes(_PEM), 0o644)
    return certificate


def hand_out(ca: Path, certificate: x509.Certificate, out: Path) -> None:
    """Write a certificate for its host, and what its agent must know of the authority."""
    write(out / "agent.crt", certificate.public_bytes(_PEM), 0o644)
    write(out / "ca.crt", read(ca / "ca.crt"), 0o644)
    if not (ca / "ca.crl").exists():  # of an authority made before there was one
        write_list(ca, frozenset())
    write(out / "ca.crl", read(ca / "ca.crl"), 0o644)


def write_list(ca: Path, serials: frozenset[int]) -> None:
    """Sign the list of those that were taken back."""
    authority, key = read_certificate(ca / "ca.crt"), read_authority_key(ca)
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now)
        # The standard wants it. Nobody looks at it: a list that is old is better than none.
        .next_update(now + datetime.timedelta(days=CA_DAYS))
    )
    for serial in sorted(serials):
        one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        made = made.add_revoked_certificate(one)
    write(ca / "ca.crl", made.sign(key, hashes.SHA256()).public_bytes(_PEM), 0o644)


def load(tls: TLSFiles) -> Credentials:
    """Read this host's credentials and make sure that others could accept them."""
    certificate, key = read_certificate(tls.certificate), _read_key(tls.key)
    if key.public_key().public_bytes(*_PUBLIC) != certificate.public_key().public_bytes(*_PUBLIC):
        raise CertificateError(f"{tls.key} is not the key of {tls.certificate}")
    _check_time(tls.certificate, certificate)
    authority = read_certificate(tls.ca)
    _check_time(tls.ca, authority)
    identity = _identity(tls.certificate, certificate)
    denied = DenyList(tls.deny_list, authority)
    pem = read(tls.certificate)
    denied.require_not_listed(pem, f"{tls.certificate}, this host's own certificate,")
    return Credentials(identity, tls, read(tls.ca), pem, read(tls.key), denied)


def is_name(text: str) -> bool:
    """Whether a host may be called so."""
    return re.fullmatch(agent_messages.AGENT_NAME, text) is not None


def identity(whose: str, common: Sequence[str], names: frozenset[str]) -> Identity:
    """Who it is by the names in a certificate: common names, and alternative ones, addresses among them.

    One rule for both ends of a connection: TLS checks a server for an alternative name, and of a client the common one
    is believed. So they must be the same. Raises `CertificateError` for any other.
    """
    if len(common) != 1 or common[0] not in names or not is_name(common[0]):
        raise CertificateError(
            f"{whose} names no one host (its common name {', '.join(map(printable, common)) or '–'} must be among its "
            "alternative names): make one with `migrrdma agent ca issue`"
        )
    return Identity(common[0], names - {common[0]})


def _identity(path: Path, certificate: x509.Certificate) -> Identity:
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise CertificateError(
            f"{path} names no address (it has no subject alternative names): make one with "
            "`migrrdma agent ca issue`"
        ) from error
    addresses = frozenset(str(one) for one in names.get_values_for_type(x509.IPAddress))
    if not addresses:
        raise CertificateError(f"{path} names no address: make one with `migrrdma agent ca issue`")
    hosts = frozenset(names.get_values_for_type(x509.DNSName))
    name = identity(str(path), [str(one.value) for one in common], addresses | hosts).name
    return Identity(name, addresses)


def require_name(host: str) -> None:
    """Refuse a name that no host may have in a certificate."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        raise CertificateError(
            f"{host} is an address and no name: call the host something else, and name this with --address"
        )
    if not is_name(host):
        raise CertificateError(
            f"{printable(host)} is no name of a host: letters, digits, '-', '_' and '.', and no wildcard"
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)  # the hosts' clocks may differ
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def validity(certificate: x509.Certificate) -> tuple[datetime.datetime, datetime.datetime]:
    """From when to when it is valid."""
    # cryptography 42 has the aware properties and warns of the naive ones; Debian 12's 38 has only those.
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return (
        certificate.not_valid_before.replace(tzinfo=datetime.UTC),
        certificate.not_valid_after.replace(tzinfo=datetime.UTC),
    )


def _check_time(path: Path, certificate: x509.Certificate) -> None:
    first, last = validity(certificate)
    if not first <= datetime.datetime.now(datetime.UTC) <= last:
        raise CertificateError(
            f"{path} is valid from {first:%Y-%m-%d} to {last:%Y-%m-%d} only: check this host's clock, "
            "or make a new one with `migrrdma agent ca issue`"
        )


def read(path: Path) -> bytes:
    """The content of a file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(
            f"cannot read {path}: {error.strerror}; `migrrdma agent ca issue` makes what a host needs"
        ) from error


def read_certificate(path: Path) -> x509.Certificate:
    """The certificate in a file."""
    try:
        return x509.load_pem_x509_certificate(read(path))
    except ValueError as error:
        raise CertificateError(f"{path} holds no certificate: {error}") from error


def read_authority_key(ca: Path) -> ec.EllipticCurvePrivateKey:
    """The key of the authority in a directory."""
    key = _read_key(ca / "ca.key")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{ca / 'ca.key'} was not made by `migrrdma agent ca init`")
    return key


def _read_key(path: Path) -> PrivateKeyTypes:
    _require_private(path)
    try:
        return serialization.load_pem_private_key(read(path), password=None)
    except (ValueError, TypeError) as error:
        raise CertificateError(f"{path} holds no private key without a password: {error}") from error


def _require_private(path: Path) -> None:
    """Refuse a key that others than root, or whoever runs this, can read or could have put there."""
    with contextlib.suppress(OSError):  # reading it says what is wrong
        status = path.stat()
        if status.st_mode & 0o077 or status.st_uid not in (0, os.geteuid()):
            raise CertificateError(
                f"{path} is a secret, and others may read it (mode {stat.S_IMODE(status.st_mode):04o}, owner "
                f"{status.st_uid}): `chown root {path}; chmod 600 {path}`, and think of who has read it"
            )


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a private key, for its owner alone."""
    pem = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write(path, pem, 0o600)


def write(path: Path, content: bytes, mode: int) -> None:
    """Write a file, whole or not at all."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace(path, content, mode)
    except OSError as error:
        raise CertificateError(f"cannot write {path}: {error.strerror}") from error


def listening(configured: tuple[str, ...], identity: Identity, tls: TLSFiles) -> list[str]:
    """Where this host listens: the configured addresses, else those of the certificate that are this host's."""
    if configured:
        return list(configured)
    own = [address for address in sorted(identity.addresses) if _is_local(address)]
    if not own:
        raise CertificateError(
            f"no address in {tls.certificate} ({', '.join(sorted(identity.addresses))}) is "
            "this host's: issue it one with `migrrdma agent ca issue`, or set listen in agent.toml"
        )
    return own


def _is_local(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
