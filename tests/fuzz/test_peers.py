"""Messages from agents of other hosts to a real agent: each is answered, or refused by name."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from cluster import Cluster, Host
from complaints import unexpected_errors
from fuzzing import Fuzzer, changed_json, changed_text
from moves import Move

from migrrdma_runtime.agent.peers import certificates
from migrrdma_runtime.base.errors import MessageError
from migrrdma_runtime.wire import agent_messages, remote_keys, tokens
from migrrdma_runtime.wire.agent_messages import EXCHANGES, Message

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

_ANSWER_S = 10
"""For any answer at all: longer than the deadlines of whatever a request may be waiting for."""


def _requests(move: Move) -> dict[str, Message]:
    """One of each, as the agents of the move would say it."""
    document, src, dst, peer = move.document, move.src, move.dst, move.peer
    migration, token = document["migration"], document["token"]
    claim = {"migration": migration, "key": tokens.key_for(token, peer.name), "epoch": 1}
    at_source = {"migration": migration, "key": tokens.key_for(token, src.name), "epoch": 1}
    contact = {host.name: host.agent.contact.as_message() for host in (src, dst)}
    facing = [{"gid": peer.gid, "qpn": 0x21 + n, "peer_gid": src.gid, "peer_qpn": 0x11 + n} for n in range(2)]
    return {
        "hello": {"version": agent_messages.VERSION},
        "suspend": {
            "migration": migration,
            "source": contact["src"],
            "key_digest": "0" * 64,
            "datagrams": [],
            "connections": facing,
        },
        "drain": {"migration": migration, "seconds": 0.1},
        "undo": {"migration": migration},
        "claim": {
            "migration": migration,
            "key": at_source["key"],
            "attempt": "0" * 16,
            "destination": contact["dst"],
        },
        "commit": at_source,
        "release": at_source,
        "finish": at_source,
        "confirm": claim,
        "prepare": {
            **claim,
            "destination": contact["dst"],
            "connections": [
                {
                    "gid": one["gid"],
                    "qpn": one["qpn"],
                    "new_peer_gid": dst.gid,
                    "new_peer_qpn": 0x31,
                    "sq_psn": 1,
                    "rq_psn": 2,
                    "peer": "a" * 16,
                }
                for one in facing
            ],
            "keys": {"a" * 16: remote_keys.pack([(1, 2)])},
            "places": [],
        },
        "retract": claim,
        "switch": claim,
        "outcome": {"migration": migration},
        "holding": {"migration": migration, "epoch": 1},
        "where": {
            "asker": contact["dst"],
            "gid": src.gid,
            "qpn": 0x11,
            "from_gid": dst.gid,
            "from_qpn": 0x31,
        },
        "moved_on": {"agent": contact["dst"], "names": [{"gid": src.gid, "process": "a" * 16}]},
    }


def _fits(name: str, data: bytes) -> bool:
    try:
        agent_messages.decode(data, EXCHANGES[name].request, name)
    except MessageError:
        return False
    return True


def _channel(caller: Host, asked: Host) -> grpc.aio.Channel:
    files = certificates.load(caller.config.tls)
    credentials = grpc.ssl_channel_credentials(files.ca, files.key, files.certificate)
    return grpc.aio.secure_channel(asked.agent.contact.address, credentials)


def test_no_message_of_another_agent_is_more_than_refused(fuzzer: Fuzzer, play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(guest=0.5, peer=1, drain=0.5, ask=0.05)
        cluster.late_comers = True
        move = await Move.begin(cluster)
        await move.checkpoint()
        requests = _requests(move)
        channels = [
            _channel(caller, asked) for caller in (move.src, move.dst) for asked in (move.src, move.peer)
        ]
        fitting = 0

        async def one(rng: random.Random) -> None:
            nonlocal fitting
            name = rng.choice(list(requests))
            request: Any = requests[name]
            if name == "suspend" and rng.random() < 0.3:
                request = {**request, "migration": f"{rng.getrandbits(64):016x}"}
            if rng.random() < 0.1:  # what the certificate has, and a port that cannot be
                who = {"name": "src", "address": f"{move.src.address}:{rng.choice((0, 65536, 99999))}"}
                request = {**request, **{key: who for key in ("source", "destination") if key in request}}
            data = changed_text(rng, changed_json(rng, request) if rng.random() < 0.5 else request)
            fitting += _fits(name, data)
            method: Any = rng.choice(channels).unary_unary(f"/migrrdma.Agent/{name}")
            try:
                await method(data, timeout=_ANSWER_S)
            except grpc.aio.AioRpcError as error:
                refused = error.code() not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED)
                assert refused, f"{name} {data!r}: {error.details()}: {errors}"
            assert errors == [], errors[0]

        with unexpected_errors() as errors:
            await fuzzer.arun(one)
            await asyncio.gather(*(channel.close() for channel in channels))
        assert fitting > fuzzer.rounds / 20, "most did not fit the schema: nothing was shown"

    play(scenario)
