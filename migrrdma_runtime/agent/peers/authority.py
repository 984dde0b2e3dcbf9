"""What the cluster's certificate authority has made, renews and takes back, in one directory of one machine.

::

    ca.key, ca.crt      its key and certificate
    issued/SERIAL.crt   every certificate that it has made
    ca.crl              those that it has taken back (deny_list.py)
"""

from __future__ import annotations

import datetime
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from migrrdma_runtime.agent.peers import certificates, deny_list
from migrrdma_runtime.agent.peers.certificates import AGENT_DAYS
from migrrdma_runtime.base.errors import CertificateError

_PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Issued:
    """A certificate that the authority has made."""

    host: str
    addresses: tuple[str, ...]
    serial: int
    until: datetime.datetime
    revoked: bool
    certificate: x509.Certificate

    @property
    def is_valid(self) -> bool:
        """Whether other agents accept it."""
        return not self.revoked and self.until > datetime.datetime.now(datetime.UTC)


def request(host: str, out: Path) -> None:
    """Make ``agent.key``, which stays where it is, and ``agent.csr``, which the authority makes a certificate of."""
    certificates.require_name(host)
    if (out / "agent.key").exists():
        raise CertificateError(
            f"there is a key in {out} already, which the agent may use: make the request elsewhere (--out), and move "
            "key and certificate there when both are there"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    asked = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    certificates.write_key(out / "agent.key", key)
    certificates.write(out / "agent.csr", asked.public_bytes(_PEM), 0o644)


def issue_for_request(
    ca: Path, host: str, addresses: list[str], csr: Path, out: Path, days: int = AGENT_DAYS
) -> None:
    """Make ``agent.crt`` for the key of a request. Name and addresses are the administrator's, not the request's."""
    try:
        asked = x509.load_pem_x509_csr(certificates.read(csr))
        whole = asked.is_signature_valid
    except ValueError as error:
        raise CertificateError(f"{csr} holds no certificate request: {error}") from error
    key = asked.public_key()
    if not whole or not isinstance(key, ec.EllipticCurvePublicKey):
        raise CertificateError(
            f"{csr} is damaged or not of our kind: make it with `migrrdma agent ca request`"
        )
    certificates.hand_out(ca, certificates.sign(ca, host, addresses, key, days), out)


def renew(ca: Path, host: str, out: Path, days: int = AGENT_DAYS) -> Issued:
    """Make ``agent.crt`` anew for a host's last key, name and addresses; returns the one that it replaces."""
    known = [one for one in issued(ca) if one.host == host and not one.revoked]
    if not known:
        raise CertificateError(
            f"the authority in {ca} has made no certificate for {host} that is not revoked: "
            "`migrrdma agent ca issue` makes one"
        )
    last = known[-1]
    key = last.certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 - `sign` takes no other
    certificates.hand_out(ca, certificates.sign(ca, host, list(last.addresses), key, days), out)
    return last


def issued(ca: Path) -> list[Issued]:
    """Every certificate that the authority has made, oldest first."""
    revoked = deny_list.read(ca / "ca.crl", certificates.read_certificate(ca / "ca.crt"))
    found = []
    for path in (ca / certificates.ISSUED).glob("*.crt"):
        certificate = certificates.read_certificate(path)
        first, until = certificates.validity(certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        addresses = tuple(sorted(str(one) for one in names.get_values_for_type(x509.IPAddress)))
        [host] = names.get_values_for_type(x509.DNSName)
        serial = certificate.serial_number
        when = (first, path.stat().st_mtime_ns)
        found.append((when, Issued(host, addresses, serial, until, serial in revoked, certificate)))
    return [one for _, one in sorted(found, key=lambda each: each[0])]


def revoke(ca: Path, who: str) -> list[Issued]:
    """Take back the certificates of a host, or the one with this serial number; those are returned.

    Raises `CertificateError` for a host or serial number that the authority has made no valid certificate for.
    """
    with _locked(ca):
        found = [one for one in issued(ca) if who in (one.host, f"{one.serial:x}") and one.is_valid]
        if not found:
            raise CertificateError(
                f"the authority in {ca} has made no valid certificate for {who}: `migrrdma agent ca list` lists them"
            )
        before = deny_list.read(ca / "ca.crl", certificates.read_certificate(ca / "ca.crt"))
        certificates.write_list(ca, before | {one.serial for one in found})
    return found


@contextmanager
def _locked(ca: Path) -> Iterator[None]:
    """Keep two administrators from writing the list at once."""
    try:
        handle = os.open(ca, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise CertificateError(f"cannot open {ca}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
