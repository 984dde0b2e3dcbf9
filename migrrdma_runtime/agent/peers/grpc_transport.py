"""Agents over the network: gRPC over mutual TLS, and the one place where its errors become ours.

Both ends show a certificate of the cluster's authority. The client's side checks that the server's names the
address it dialled; the server's side learns from the client's who asks, and every handler is given that
:class:`Identity` to decide by. A request that is not what :mod:`messages` says does not reach its handler.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from migrrdma_runtime.agent.peers.agent_config import TLSFiles, host_of, join
from migrrdma_runtime.agent.peers.certificates import Credentials, Identity
from migrrdma_runtime.agent.peers.tls_probe import Obstacle, find_obstacle
from migrrdma_runtime.agent.peers.transport import Handler, Handlers
from migrrdma_runtime.base.errors import (
    AgentError,
    BusyError,
    DrainError,
    GuestError,
    MessageError,
    MigrRDMAError,
    RefusedError,
    StoreError,
    UnreachableError,
)
from migrrdma_runtime.wire import agent_messages
from migrrdma_runtime.wire.agent_messages import EXCHANGES, Message

_log = logging.getLogger(__name__)

_SERVICE = "migrrdma.Agent"
_CODES: tuple[tuple[type[MigrRDMAError], grpc.StatusCode], ...] = (
    (DrainError, grpc.StatusCode.ABORTED),
    (GuestError, grpc.StatusCode.FAILED_PRECONDITION),
    (BusyError, grpc.StatusCode.ALREADY_EXISTS),
    (RefusedError, grpc.StatusCode.PERMISSION_DENIED),
    (MessageError, grpc.StatusCode.INVALID_ARGUMENT),
    (StoreError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (UnreachableError, grpc.StatusCode.NOT_FOUND),
)
"""An error of ours as a status, most specific first, and back."""

_OPTIONS = (
    ("grpc.max_receive_message_length", agent_messages.MAX_BYTES),
    ("grpc.max_send_message_length", agent_messages.MAX_BYTES),
)
_CHANNEL_OPTIONS = (
    *_OPTIONS,
    # An http_proxy in the agent's environment is not meant for this.
    ("grpc.enable_http_proxy", 0),
    # Whether a lost request may be repeated is the protocol's decision.
    ("grpc.enable_retries", 0),
    # Until it tries anew, it answers with the last error: an agent that is back must not seem down for long.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
_IDLE_S = 10.0
"""A host that crashed has not closed its connections. One kept over its reboot would fail the next request, so none is
used that has been idle for as long as a host may take to come up again. (grpc.client_idle_timeout_ms would close them,
but not in 1.51, which Debian 12 and 13 carry.)"""
_MAX_CONCURRENT = 256
_MAX_DETAILS = 2000


class GrpcServer:
    """Listens on this host's addresses and hands requests to the handlers."""

    def __init__(self, credentials: Credentials, handlers: Handlers) -> None:
        self._server = grpc.aio.server(
            # Without SO_REUSEPORT off, two agents on one host would share the port, and the requests.
            options=(*_OPTIONS, ("grpc.so_reuseport", 0)),
            maximum_concurrent_rpcs=_MAX_CONCURRENT,
        )
        self._credentials = grpc.ssl_server_credentials(
            [(credentials.key, credentials.certificate)], credentials.ca, require_client_auth=True
        )
        served = {name: self._serve(name, handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, served),))

    async def start(self, addresses: list[str], port: int) -> None:
        """Bind every address, or fail naming the one that cannot be bound."""
        for address in addresses:
            where = join(address, port)
            try:
                bound = self._server.add_secure_port(where, self._credentials)
            except RuntimeError:
                bound = 0
            if not bound:
                raise AgentError(
                    f"cannot listen on {where}: the address is not this host's or the port is taken; "
                    "see listen and port in agent.toml"
                )
        await self._server.start()

    async def stop(self) -> None:
        """Close the port at once; requests under way fail, and their senders ask again."""
        await self._server.stop(grace=None)

    @staticmethod
    def _serve(name: str, handler: Handler) -> grpc.RpcMethodHandler[bytes, bytes]:
        exchange = EXCHANGES[name]

        async def serve(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            caller = _caller(context)
            try:
                message = agent_messages.decode(request, exchange.request, f"{name} from agent {caller.name}")
                reply = await handler(caller, message)
                return agent_messages.encode(
                    agent_messages.check(reply, exchange.reply, f"the reply to {name}")
                )
            except MigrRDMAError as error:
                _log.info("%s from %s refused: %s", name, caller.name, error)
                code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
                await context.abort(code or grpc.StatusCode.UNKNOWN, str(error)[:_MAX_DETAILS])
            except Exception:  # noqa: BLE001 (a bug of ours, which grpc would show to the caller)
                _log.exception("%s from %s failed", name, caller.name)
                await context.abort(grpc.StatusCode.INTERNAL, "internal error; see its log")
            raise AssertionError("abort() raises")

        return grpc.unary_unary_rpc_method_handler(serve)


@dataclass
class _Kept:
    """A connection, how many requests are under way on it, and when the last one ended (the loop's clock)."""

    channel: grpc.aio.Channel
    busy: int = 0
    used: float = 0.0


class GrpcTransport:
    """Asks other agents; connections are kept from one request of a migration to the next."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = grpc.ssl_channel_credentials(
            credentials.ca, credentials.key, credentials.certificate
        )
        self._tls = credentials.files
        self._kept: dict[str, _Kept] = {}

    async def ask(self, address: str, name: str, request: Message, timeout: float) -> Message:
        """Ask the agent at ``host:port``, once."""
        exchange = EXCHANGES[name]
        what = f"{name} to the agent at {address}"
        data = agent_messages.encode(agent_messages.check(request, exchange.request, what))
        kept = await self._connection(address)
        method: Any = kept.channel.unary_unary(f"/{_SERVICE}/{name}")
        kept.busy += 1
        try:
            reply: bytes = await method(data, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise await _translated(error, address, name, timeout, self._tls) from error
        finally:
            kept.busy -= 1
            kept.used = asyncio.get_running_loop().time()
        return agent_messages.decode(reply, exchange.reply, f"the reply of the agent at {address} to {name}")

    async def close(self) -> None:
        """Close every connection."""
        for kept in self._kept.values():
            await kept.channel.close()
        self._kept.clear()

    async def _connection(self, address: str) -> _Kept:
        now = asyncio.get_running_loop().time()
        kept = self._kept.get(address)
        stale = kept if kept and not kept.busy and (now - kept.used > _IDLE_S or _has_failed(kept)) else None
        if kept is None or stale:
            channel = grpc.aio.secure_channel(address, self._credentials, options=_CHANNEL_OPTIONS)
            kept = self._kept[address] = _Kept(channel, used=now)
        if stale:
            await stale.channel.close()
        return kept


def _has_failed(kept: _Kept) -> bool:
    """Whether it would answer with an error of before: an agent that has been down may be back by now."""
    return bool(kept.channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE)


def _caller(context: grpc.aio.ServicerContext[bytes, bytes]) -> Identity:
    """Who asks, by its certificate, which TLS has verified."""
    properties = context.auth_context()
    common = list(properties.get("x509_common_name", ()))
    names = properties.get("x509_subject_alternative_name", ())
    return Identity(_text(common[0] if common else b"?"), frozenset(_text(name) for name in names))


def _text(value: bytes) -> str:
    """A name, or an address in the one spelling that addresses have here."""
    name = value.decode(errors="replace")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


async def _translated(
    error: grpc.aio.AioRpcError, address: str, name: str, timeout: float, tls: TLSFiles
) -> AgentError:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return UnreachableError(
            f"the agent at {address} did not answer {name} within {timeout:g} s: "
            "is the host up, and TCP to that port let through?"
        )
    if code is grpc.StatusCode.UNAVAILABLE:
        host, port = host_of(address), int(address.rpartition(":")[2])
        obstacle, reason = await find_obstacle(host, port, tls, timeout)
        if obstacle is Obstacle.CERTIFICATE:
            return UnreachableError(
                f"the agent at {address} and this one do not accept each other's certificates ({reason}): "
                "both must be of one authority and name that address; see `migrrdma agent ca issue`"
            )
        return UnreachableError(
            f"no connection to the agent at {address} ({reason}): is migrrdma-agent running there?"
        )
    for kind, known in _CODES:
        if code is known and issubclass(kind, AgentError):
            return kind(f"agent at {address}: {details}")
    return AgentError(f"agent at {address}: {name} failed: {code.name.lower()}: {details}")
