"""Certificates that the authority has taken back: ``ca.crl`` beside an agent's certificate, signed by the authority.

The file may be replaced at any time; the next request is judged by what is in it then.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from migrrdma_runtime.base.errors import CertificateError

_log = logging.getLogger(__name__)


def read(path: Path, authority: x509.Certificate) -> frozenset[int]:
    """The serial numbers in a list; none if there is no list. `CertificateError`: it is damaged, or another's."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise CertificateError(f"cannot read {path}: {error.strerror}") from error
    key = authority.public_key()
    try:
        found = x509.load_pem_x509_crl(content)
        ours = isinstance(key, EllipticCurvePublicKey) and found.is_signature_valid(key)
    except ValueError as error:
        raise CertificateError(f"{path} holds no list of revoked certificates: {error}") from error
    if not ours:
        raise CertificateError(
            f"{path} is not of the authority that agents here know: copy its ca.crl again, with its ca.crt"
        )
    return frozenset(one.serial_number for one in found)


class DenyList:
    """What is in the file at the moment.

    A list that becomes damaged changes nothing. One that is damaged when the agent starts may have named anybody: then
    no certificate is valid until it is mended, and what concerns this host alone goes on.
    """

    def __init__(self, path: Path, authority: x509.Certificate) -> None:
        self._path = path
        self._authority = authority
        self._seen = self._stamp()
        self._serials: frozenset[int] = frozenset()
        self._damage = ""
        try:
            self._serials = read(path, authority)
        except CertificateError as error:
            self._damage = (
                f"{error}; so no other agent is asked or answered here. Copy ca.crl from the directory of the "
                f"cluster's authority to {path}: it is read at once"
            )
            _log.error("%s", self._damage)

    @property
    def serials(self) -> frozenset[int]:
        """The serial numbers. One object as long as nothing has changed; a list that is damaged changes nothing."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._serials = read(self._path, self._authority)
            except CertificateError as error:
                _log.error("%s; what was revoked before stays so", error)
            else:
                self._damage = ""
                _log.info("%d revoked certificates in %s", len(self._serials), self._path)
        return self._serials

    def require_known(self) -> None:
        """Refuse everybody while nobody knows who was revoked."""
        if not self.serials and self._damage:
            raise CertificateError(self._damage)

    def require_valid(self, certificate: bytes, whose: str) -> None:
        """Refuse a certificate (PEM or DER) that was taken back, or any if that is not known."""
        self.require_known()
        self.require_not_listed(certificate, whose)

    def require_not_listed(self, certificate: bytes, whose: str) -> None:
        """Refuse a certificate (PEM or DER) that was taken back by what is known."""
        if self.serials and serial_of(certificate) in self._serials:
            raise CertificateError(
                f"{whose} (serial {serial_of(certificate):x}) was revoked: its host needs a new one, by "
                "`migrrdma agent ca issue`"
            )

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(256)
def serial_of(certificate: bytes) -> int:
    """The serial number of a certificate, PEM or DER."""
    pem = certificate.startswith(b"-----")
    return (x509.load_pem_x509_certificate if pem else x509.load_der_x509_certificate)(
        certificate
    ).serial_number
