"""Agents over the network: gRPC over mutual TLS, and the one place where its errors become ours.

Both ends show a certificate of the cluster's authority. The client's side asks an agent that it knows by name over a
connection on which TLS accepts that name's certificate and no other; of one that it does not know yet, the certificate
must name the address it dialled. The server's side learns from the client's who asks, and every handler is given that
:class:`Identity` to decide by. A request that is not what :mod:`messages` says does not reach its handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import resource
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from migrrdma_runtime.agent.peers import allowances, certificates
from migrrdma_runtime.agent.peers.agent_config import TLSFiles, host_of, join
from migrrdma_runtime.agent.peers.allowances import Allowances
from migrrdma_runtime.agent.peers.certificates import Credentials, Identity
from migrrdma_runtime.agent.peers.refusals import Refusals
from migrrdma_runtime.agent.peers.tls_probe import Obstacle, find_obstacle, look
from migrrdma_runtime.agent.peers.transport import Handler, Handlers, StreamHandler, StreamHandlers
from migrrdma_runtime.base.errors import (
    AgentError,
    AllowanceError,
    BusyError,
    CertificateError,
    DrainError,
    GuestError,
    MessageError,
    MigrRDMAError,
    RefusedError,
    StoreError,
    UnreachableError,
)
from migrrdma_runtime.base.escaping import printable
from migrrdma_runtime.wire import agent_messages
from migrrdma_runtime.wire.agent_messages import AGENTS, Exchange, Message, Vocabulary
from migrrdma_runtime.wire.compiled_schema import Schema

_log = logging.getLogger(__name__)

_CODES: tuple[tuple[type[MigrRDMAError], grpc.StatusCode], ...] = (
    (DrainError, grpc.StatusCode.ABORTED),
    (GuestError, grpc.StatusCode.FAILED_PRECONDITION),
    (BusyError, grpc.StatusCode.ALREADY_EXISTS),
    (RefusedError, grpc.StatusCode.PERMISSION_DENIED),
    (MessageError, grpc.StatusCode.INVALID_ARGUMENT),
    (CertificateError, grpc.StatusCode.UNAUTHENTICATED),
    (StoreError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (AllowanceError, grpc.StatusCode.OUT_OF_RANGE),
    (UnreachableError, grpc.StatusCode.NOT_FOUND),
)
"""An error of ours as a status, most specific first, and back."""

_WHOLE = b""
"""The last message of a stream that is whole."""

_ANSWER: Schema = {
    "type": "object",
    "propertyNames": {"type": "string", "pattern": "^(reply|kind|message)$", "maxLength": 7},
    "additionalProperties": {},
}
"""To a stream: the reply, or the kind of the error and its message."""

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
used that has been idle for as long as a host may take to come up again. It is closed then: an agent that has asked a
thousand others once would else have a thousand for ever. (grpc.client_idle_timeout_ms would close them, but not in
1.51, which Debian 12 and 13 carry.)"""
_HANDSHAKE_S = 10.0
"""A connection on which no agent has shown its certificate by then is closed. The library's own limit is 120 seconds:
whoever reaches the port and says nothing would have a descriptor for as long."""
_PART_OF_DESCRIPTORS = 8
"""What part of this process's descriptors the connections to one address may have: the guests' come out of the same."""
_MOST_CONNECTIONS = 8192
_LARGE = 256 << 10
"""Bytes of a request that is not looked at in the event loop."""
_MAX_DETAILS = 2000


class GrpcServer:
    """Listens on this host's addresses and hands requests to the handlers."""

    def __init__(
        self,
        credentials: Credentials,
        handlers: Handlers,
        streams: StreamHandlers | None = None,
        vocabulary: Vocabulary = AGENTS,
    ) -> None:
        self._server = grpc.aio.server(
            # Without SO_REUSEPORT off, two agents on one host would share the port, and the requests.
            options=(
                *_OPTIONS,
                ("grpc.so_reuseport", 0),
                ("grpc.max_concurrent_streams", allowances.UNDER_WAY),
                ("grpc.server_handshake_timeout_ms", round(_HANDSHAKE_S * 1000)),
                # 1.51, which Debian 12 and 13 carry, does not know it yet: there the handshake's limit is all there is.
                ("grpc.max_allowed_incoming_connections", _most_connections()),
            ),
        )
        self._credentials = grpc.ssl_server_credentials(
            [(credentials.key, credentials.certificate)], credentials.ca, require_client_auth=True
        )
        self._allowances = Allowances()
        self._refusals = Refusals()
        self._denied = credentials.denied
        self._one_large = asyncio.Lock()
        self._under_way: set[asyncio.Task[bytes]] = set()
        served: dict[str, Any] = {
            name: self._serve(name, handler, vocabulary.exchanges[name]) for name, handler in handlers.items()
        }
        for name, taker in (streams or {}).items():
            served[name] = self._serve_stream(name, taker, vocabulary.streams[name])
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(vocabulary.service, served),)
        )

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
        for one in self._under_way:
            one.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _decode(self, request: bytes, exchange: Exchange, what: str) -> Message:
        """Look at a request; at a large one beside the event loop, and at one at a time."""
        if len(request) <= _LARGE:
            return agent_messages.decode(request, exchange.request, what)
        async with self._one_large:
            return await asyncio.to_thread(agent_messages.decode, request, exchange.request, what)

    async def _whoever_hears_it(self, caller: str, name: str, work: Coroutine[Any, Any, bytes]) -> bytes:
        """Carry a request out, to its end also when its asker has gone: the library would cancel it where it is.

        That may be between a decision that is on the disk and those who are to be told of it.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda task: self._nobody_hears(caller, name, task))
            raise

    def _nobody_hears(self, caller: str, name: str, task: asyncio.Task[bytes]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, MigrRDMAError):
            self._refusals.say(caller, name, error)
        elif error is not None:
            _log.error("%s from %s failed", name, caller, exc_info=error)

    def _serve(self, name: str, handler: Handler, exchange: Exchange) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def carry_out(caller: Identity, request: bytes) -> bytes:
            with self._allowances.of(caller.name).request(name, len(request)):
                message = await self._decode(request, exchange, f"{name} from agent {caller.name}")
                reply = await handler(caller, message)
            return agent_messages.encode(agent_messages.check(reply, exchange.reply, f"the reply to {name}"))

        async def serve(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            async def answer(caller: Identity) -> bytes:
                return await self._whoever_hears_it(caller.name, name, carry_out(caller, request))

            return await self._answered(name, context, answer)

        return grpc.unary_unary_rpc_method_handler(serve)

    def _serve_stream(
        self, name: str, taker: StreamHandler, exchange: Exchange
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def take(
            requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
        ) -> Message:
            caller = Identity("?", frozenset())
            try:
                caller = _caller(context)
                self._denied.require_valid(_certificate(context), f"the certificate of agent {caller.name}")
                first = await anext(requests, b"")
                with self._allowances.of(caller.name).request(name, len(first)):
                    header = await self._decode(first, exchange, f"{name} from agent {caller.name}")
                    reply = await taker(caller, header, _until_whole(requests, name))
                return {"reply": agent_messages.check(reply, exchange.reply, f"the reply to {name}")}
            except MigrRDMAError as error:
                self._refusals.say(caller.name, name, error)
                kind = next((kind for kind, _ in _CODES if isinstance(error, kind)), AgentError)
                return {"kind": kind.__name__, "message": str(error)[:_MAX_DETAILS]}
            except Exception:  # noqa: BLE001 (a bug of ours, which grpc would show to the caller)
                _log.exception("%s from %s failed", name, caller.name)
                return {"kind": AgentError.__name__, "message": "internal error; see its log"}

        async def serve(
            requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
        ) -> AsyncIterator[bytes]:
            # As a message, and then whatever else is on its way: of a status that comes while it writes, the library
            # tells a sender only that something is wrong in its own core.
            yield agent_messages.encode(await take(requests, context))
            async for _ in requests:
                pass

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _answered(
        self,
        name: str,
        context: grpc.aio.ServicerContext[bytes, bytes],
        answer: Callable[[Identity], Awaitable[bytes]],
    ) -> bytes:
        """Answer whoever is entitled to ask; an error becomes its status."""
        caller = Identity("?", frozenset())
        try:
            caller = _caller(context)
            self._denied.require_valid(_certificate(context), f"the certificate of agent {caller.name}")
            return await answer(caller)
        except MigrRDMAError as error:
            if not isinstance(error, AllowanceError):  # of which allowances.py has said it
                self._refusals.say(caller.name, name, error)
            code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
            await context.abort(code or grpc.StatusCode.UNKNOWN, str(error)[:_MAX_DETAILS])
        except Exception:  # noqa: BLE001 (a bug of ours, which grpc would show to the caller)
            _log.exception("%s from %s failed", name, caller.name)
            await context.abort(grpc.StatusCode.INTERNAL, "internal error; see its log")
        raise AssertionError("abort() raises")


@dataclass
class _Kept:
    """A connection, how many requests are under way on it, and when the last one ended (the loop's clock)."""

    channel: grpc.aio.Channel
    denied: frozenset[int]
    """What was revoked when it was opened."""
    busy: int = 0
    used: float = 0.0
    closes: asyncio.TimerHandle | None = None
    """While it is idle."""


class GrpcTransport:
    """Asks other agents; connections are kept from one request of a migration to the next."""

    def __init__(self, credentials: Credentials, vocabulary: Vocabulary = AGENTS) -> None:
        self._vocabulary = vocabulary
        self._credentials = grpc.ssl_channel_credentials(
            credentials.ca, credentials.key, credentials.certificate
        )
        self._tls = credentials.files
        self._denied = credentials.denied
        self._kept: dict[tuple[str, str], _Kept] = {}
        """By address and name of the agent."""
        self._closing: set[asyncio.Task[None]] = set()

    async def ask(
        self, address: str, name: str, request: Message, timeout: float, agent: str = ""
    ) -> Message:
        """Ask the agent at ``host:port``, once; with a name only that one."""
        exchange = self._vocabulary.exchanges[name]
        what = f"{name} to the agent at {address}"
        data = agent_messages.encode(agent_messages.check(request, exchange.request, what))

        async def call(channel: grpc.aio.Channel) -> bytes:
            method: Any = channel.unary_unary(f"/{self._vocabulary.service}/{name}")
            reply: bytes = await method(data, timeout=timeout)
            return reply

        reply = await self._call(address, name, timeout, agent, call)
        return agent_messages.decode(reply, exchange.reply, f"the reply of the agent at {address} to {name}")

    async def send(
        self,
        address: str,
        name: str,
        header: Message,
        chunks: AsyncGenerator[bytes, None],
        timeout: float,
        agent: str = "",
    ) -> Message:
        """Send a stream of bytes, each chunk at most as long as a message may be, and wait for the answer to all.

        ``timeout``: for the connection; how long the whole may take is the caller's to watch over. What the chunks'
        generator raises is raised here, and the other end's taker is cancelled.
        """
        exchange = self._vocabulary.streams[name]
        what = f"{name} to the agent at {address}"
        data = agent_messages.encode(agent_messages.check(header, exchange.request, what))

        async def everything(stream: Any) -> None:
            await stream.write(data)
            async for chunk in chunks:
                if chunk:
                    await stream.write(chunk)
            await stream.write(_WHOLE)
            await stream.done_writing()

        async def call(channel: grpc.aio.Channel) -> bytes:
            stream: Any = channel.stream_stream(f"/{self._vocabulary.service}/{name}")()
            reading = asyncio.ensure_future(stream.read())
            writing = asyncio.ensure_future(everything(stream))
            try:
                await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
                if writing.done() and not reading.done():
                    # What is wrong with the connection, the answer says best.
                    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                        writing.result()
                answer = await reading
                return answer if isinstance(answer, bytes) else b""
            finally:
                stream.cancel()
                writing.cancel()
                reading.cancel()
                await asyncio.gather(writing, reading, return_exceptions=True)

        async with contextlib.aclosing(chunks):
            answer = await self._call(address, name, timeout, agent, call)
        return _taken(answer, exchange, address, name)

    async def _call(
        self,
        address: str,
        name: str,
        timeout: float,
        agent: str,
        call: Callable[[grpc.aio.Channel], Awaitable[bytes]],
    ) -> bytes:
        kept = await self._connection(address, agent, timeout)
        kept.busy += 1
        if kept.closes is not None:
            kept.closes.cancel()
        try:
            return await call(kept.channel)
        except grpc.aio.AioRpcError as error:
            raise await _translated(error, address, name, timeout, self._tls, agent) from error
        finally:
            kept.busy -= 1
            loop = asyncio.get_running_loop()
            kept.used = loop.time()
            if not kept.busy and self._kept.get((address, agent)) is not kept:
                await kept.channel.close()  # another has taken its place
            elif not kept.busy:
                kept.closes = loop.call_later(_IDLE_S, self._close_idle, (address, agent), kept)

    async def close(self) -> None:
        """Close every connection."""
        for kept in self._kept.values():
            if kept.closes is not None:
                kept.closes.cancel()
            await kept.channel.close()
        self._kept.clear()
        await asyncio.gather(*self._closing)

    def _close_idle(self, where: tuple[str, str], kept: _Kept) -> None:
        if kept.busy or self._kept.get(where) is not kept:
            return
        del self._kept[where]
        task = asyncio.get_running_loop().create_task(kept.channel.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _connection(self, address: str, agent: str, timeout: float) -> _Kept:
        try:
            self._denied.require_known()
        except CertificateError as error:
            raise UnreachableError(str(error)) from error  # nobody was asked; when it is mended they will be
        now, denied = asyncio.get_running_loop().time(), self._denied.serials
        kept = self._kept.get((address, agent))
        if kept and not kept.busy and (now - kept.used > _IDLE_S or _has_failed(kept)):
            del self._kept[address, agent]
            await kept.channel.close()
            kept = self._kept.get((address, agent))  # another request may have opened one meanwhile
        if kept is None or kept.denied is not denied:
            if denied:
                await self._require_valid(address, agent, timeout)
                kept = self._kept.get((address, agent))
            if kept is None or kept.denied is not denied:
                channel = grpc.aio.secure_channel(address, self._credentials, options=_channel_options(agent))
                before, kept = kept, _Kept(channel, denied, used=now)
                self._kept[address, agent] = kept
                if before and not before.busy:
                    await before.channel.close()
        return kept

    async def _require_valid(self, address: str, agent: str, timeout: float) -> None:
        """See what certificate is shown at an address: the library does not tell of its own connections."""
        where = host_of(address), int(address.rpartition(":")[2])
        obstacle, reason, certificate = await look(*where, self._tls, timeout, agent)
        if obstacle is not Obstacle.NONE:
            raise _unreachable(address, agent, obstacle, reason)
        try:
            self._denied.require_valid(certificate, f"the certificate of the agent at {address}")
        except CertificateError as error:
            raise UnreachableError(str(error)) from error  # nobody was asked; with a new one it will be


async def _until_whole(requests: AsyncIterator[bytes], name: str) -> AsyncIterator[bytes]:
    """The chunks of a stream; `MessageError` if it ends in the middle, which the library does not tell from its end."""
    async for chunk in requests:
        if chunk == _WHOLE:
            return
        yield chunk
    raise MessageError(f"the stream of {name} ended in the middle")


def _taken(answer: bytes, exchange: Exchange, address: str, name: str) -> Message:
    """The reply to a stream, or the error that its taker had."""
    what = f"the reply of the agent at {address} to {name}"
    found = agent_messages.decode(answer, _ANSWER, what)
    if "reply" in found:
        return agent_messages.check(found["reply"], exchange.reply, what)
    kind = next((kind for kind, _ in _CODES if kind.__name__ == found.get("kind")), AgentError)
    known = kind if issubclass(kind, AgentError) else AgentError
    raise known(f"agent at {address}: {printable(str(found.get('message', '')))}")


def _most_connections() -> int:
    """To one address, before the handshake as after it; what is above it is closed at once."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = limit == resource.RLIM_INFINITY
    return _MOST_CONNECTIONS if unlimited else max(1, min(_MOST_CONNECTIONS, limit // _PART_OF_DESCRIPTORS))


def _channel_options(agent: str) -> tuple[tuple[str, str | int], ...]:
    """With the name of an agent: its certificate must carry that name, wherever it is.

    The library has the option for tests of servers whose certificate lacks their address. It replaces the name that
    the certificate is checked for, in the handshake of the very connection that the request goes over.
    """
    return (*_CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", agent)) if agent else _CHANNEL_OPTIONS


def _has_failed(kept: _Kept) -> bool:
    """Whether it would answer with an error of before: an agent that has been down may be back by now."""
    return bool(kept.channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE)


def _caller(context: grpc.aio.ServicerContext[bytes, bytes]) -> Identity:
    """Who asks, by its certificate, which TLS has verified."""
    properties = context.auth_context()
    common = [_text(name) for name in properties.get("x509_common_name", ())]
    names = frozenset(_text(name) for name in properties.get("x509_subject_alternative_name", ()))
    return certificates.identity("the caller's certificate", common, names)


def _certificate(context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    [certificate] = context.auth_context()["x509_pem_cert"]
    return bytes(certificate)


def _text(value: bytes) -> str:
    """A name, or an address in the one spelling that addresses have here."""
    name = value.decode(errors="replace")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


async def _translated(
    error: grpc.aio.AioRpcError, address: str, name: str, timeout: float, tls: TLSFiles, agent: str
) -> AgentError:
    code, details = (
        error.code(),
        printable(error.details() or ""),
    )  # which another one has chosen, for people here
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return UnreachableError(
            f"the agent at {address} did not answer {name} within {timeout:g} s: "
            "is the host up, and TCP to that port let through?"
        )
    if code is grpc.StatusCode.UNAVAILABLE:
        host, port = host_of(address), int(address.rpartition(":")[2])
        obstacle, reason = await find_obstacle(host, port, tls, timeout, agent)
        return _unreachable(address, agent, obstacle, reason)
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return UnreachableError(
            f"agent at {address}: {details}"
        )  # it has not listened; with another certificate it will
    for kind, known in _CODES:
        if code is known and issubclass(kind, AgentError):
            return kind(f"agent at {address}: {details}")
    return AgentError(f"agent at {address}: {name} failed: {code.name.lower()}: {details}")


def _unreachable(address: str, agent: str, obstacle: Obstacle, reason: str) -> UnreachableError:
    """What stands between us and an agent, for people."""
    if obstacle is Obstacle.NAME:
        return UnreachableError(
            f"the agent at {address} is not {agent or 'the one of that address'} ({reason}): both must be of one "
            "authority, and its certificate must say what it is asked as; see `migrrdma agent ca issue`"
        )
    if obstacle is Obstacle.CERTIFICATE:
        return UnreachableError(
            f"the agent at {address} and this one do not accept each other's certificates ({reason}): "
            "both must be of one authority and name that address; see `migrrdma agent ca issue`"
        )
    return UnreachableError(
        f"no connection to the agent at {address} ({reason}): is migrrdma-agent running there?"
    )
