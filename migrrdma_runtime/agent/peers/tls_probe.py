"""Why an agent cannot be reached. gRPC says it in prose; a connection of our own says it by the type of an error."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from enum import Enum

from migrrdma_runtime.agent.peers.agent_config import TLSFiles
from migrrdma_runtime.agent.peers.certificates import is_name

_MAX_SECONDS = 2.0
"""The request has failed by then; its sender waits for the reason."""


_MISMATCHES = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""


class Obstacle(Enum):
    """What stands between two agents."""

    CONNECTION = "connection"
    """No TCP connection comes about."""
    CERTIFICATE = "certificate"
    """One of the two does not accept the other's certificate."""
    NAME = "name"
    """Its certificate is as good as any, and another's than the one that was meant."""
    NONE = "none"
    """None any more: the connection broke in the middle, or the agent was just starting."""


async def find_obstacle(
    host: str, port: int, tls: TLSFiles, seconds: float, agent: str = ""
) -> tuple[Obstacle, str]:
    """Connect as gRPC does, say what fails and the system's words for it."""
    obstacle, reason, _ = await look(host, port, tls, seconds, agent)
    return obstacle, reason


async def look(
    host: str, port: int, tls: TLSFiles, seconds: float, agent: str = ""
) -> tuple[Obstacle, str, bytes]:
    """Connect as gRPC does, and say what fails, in the system's words, or else which certificate (DER) was shown.

    With an agent's name its certificate must carry that one, else the host's.
    """
    if agent and not is_name(agent):
        return Obstacle.NAME, "no certificate can carry such a name", b""
    try:
        async with asyncio.timeout(min(seconds, _MAX_SECONDS)):
            context = ssl.create_default_context(cafile=tls.ca)
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # from Python 3.13 on; gRPC does not ask for it
            context.load_cert_chain(tls.certificate, tls.key)
            context.set_alpn_protocols(["h2"])
            return await _connect(host, port, context, agent or host)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _MISMATCHES:
            return Obstacle.NAME, error.verify_message, b""
        return Obstacle.CERTIFICATE, f"certificate verify failed: {error.verify_message}", b""
    except ssl.SSLError as error:
        return Obstacle.CERTIFICATE, error.reason or "TLS handshake failed", b""
    except TimeoutError:
        return Obstacle.CONNECTION, "no answer", b""
    except OSError as error:
        return Obstacle.CONNECTION, error.strerror or str(error), b""


async def _connect(host: str, port: int, context: ssl.SSLContext, name: str) -> tuple[Obstacle, str, bytes]:
    with contextlib.suppress(ConnectionResetError):
        reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
        try:
            # With TLS 1.3 a server judges our certificate after the handshake. One that likes it begins HTTP/2.
            if await reader.read(1):
                shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                return Obstacle.NONE, "the connection was lost", shown
        finally:
            writer.transport.abort()  # not close(), which waits for the other end to say goodbye
    # It listens and hangs up on us.
    return Obstacle.CERTIFICATE, "handshake: the other end closed the connection", b""
