"""The cluster's certificate authority, the agents' certificates, and what one of them says.

An agent's certificate names its host and the addresses it speaks for: those that others reach it at, and
those that are the GIDs of its RDMA devices. What an agent may say about a connection follows from them.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from migrrdma_runtime.agent.peers.agent_config import TLSFiles
from migrrdma_runtime.base import files, gids
from migrrdma_runtime.base.errors import CertificateError
from migrrdma_runtime.base.escaping import printable
from migrrdma_runtime.wire import agent_messages

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

CA_DAYS = 3650
AGENT_DAYS = 825
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


def make_ca(directory: Path, name: str, days: int = CA_DAYS) -> None:
    """Make the cluster's authority; an existing one is never overwritten."""
    if (directory / "ca.key").exists():
        raise CertificateError(
            f"there is an authority in {directory} already; its certificates would be void"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(subject, subject, key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(directory / "ca.key", _pem_of_key(key), 0o600)
    _write(directory / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def issue(ca_directory: Path, host: str, addresses: list[str], out: Path, days: int = AGENT_DAYS) -> None:
    """Make ``agent.key`` and ``agent.crt`` for a host, with the authority's ``ca.crt`` beside them."""
    ca = _read_certificate(ca_directory / "ca.crt")
    ca_key = _read_key(ca_directory / "ca.key")
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{ca_directory / 'ca.key'} was not made by `migrrdma agent ca init`")
    if not addresses:
        raise CertificateError(
            f"no address for {host}: name those of its RDMA devices and where it is reached"
        )
    _require_name(host)
    names: list[x509.GeneralName] = [x509.DNSName(host)]
    try:
        names += [x509.IPAddress(ipaddress.ip_address(one)) for one in addresses]
    except ValueError as error:
        raise CertificateError(f"{error} (of host {host})") from error
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _builder(subject, ca.subject, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    _write(out / "agent.key", _pem_of_key(key), 0o600)
    _write(out / "agent.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    _write(out / "ca.crt", ca.public_bytes(serialization.Encoding.PEM), 0o644)


def load(tls: TLSFiles) -> Credentials:
    """Read this host's credentials and make sure that others could accept them."""
    certificate = _read_certificate(tls.certificate)
    if _read_key(tls.key).public_key().public_bytes(*_PUBLIC) != certificate.public_key().public_bytes(
        *_PUBLIC
    ):
        raise CertificateError(f"{tls.key} is not the key of {tls.certificate}")
    _check_time(tls.certificate, certificate)
    _check_time(tls.ca, _read_certificate(tls.ca))
    identity = _identity(tls.certificate, certificate)
    return Credentials(identity, tls, _read(tls.ca), _read(tls.certificate), _read(tls.key))


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


def _require_name(host: str) -> None:
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
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)  # the hosts' clocks may differ
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
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


def _check_time(path: Path, certificate: x509.Certificate) -> None:
    # cryptography 42 has the aware properties and warns of the naive ones; Debian 12's 38 has only those.
    if hasattr(certificate, "not_valid_after_utc"):
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    else:
        first = certificate.not_valid_before.replace(tzinfo=datetime.UTC)
        last = certificate.not_valid_after.replace(tzinfo=datetime.UTC)
    if not first <= datetime.datetime.now(datetime.UTC) <= last:
        raise CertificateError(
            f"{path} is valid from {first:%Y-%m-%d} to {last:%Y-%m-%d} only: check this host's clock, "
            "or make a new one with `migrrdma agent ca issue`"
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(
            f"cannot read {path}: {error.strerror}; `migrrdma agent ca issue` makes what a host needs"
        ) from error


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise CertificateError(f"{path} holds no certificate: {error}") from error


def _read_key(path: Path) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError) as error:
        raise CertificateError(f"{path} holds no private key without a password: {error}") from error


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace(path, content, mode)
    except OSError as error:
        raise CertificateError(f"cannot write {path}: {error.strerror}") from error
