"""What the agents of a migration say of its connections, and its manifest, for any number of queue pairs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from migrrdma_runtime.agent.local.guest_objects import MemoryRegion
from migrrdma_runtime.agent.local.memory_map import MemoryMap
from migrrdma_runtime.agent.local.usable_keys import by_domain
from migrrdma_runtime.base import strict_json
from migrrdma_runtime.wire import agent_messages, manifest, manifest_schema, remote_keys
from migrrdma_runtime.wire.agent_messages import EXCHANGES, Message
from migrrdma_runtime.wire.compiled_schema import Schema
from migrrdma_runtime.wire.guest_messages import WIRE

_SOURCE = {"name": "src", "address": "192.0.2.2:50505"}
_CLAIM = {"migration": "0" * 16, "key": "0" * 64, "epoch": 1}
_PROCESS = "a" * 16


_IN_ONE = (WIRE.constants["MIG_MESSAGE_MAX"] - 64) // WIRE.kinds["MRS"].record.size


def _gid(host: int) -> str:
    return f"0000:0000:0000:0000:0000:ffff:c000:{host:04x}"


@dataclass
class Conversation:
    """A process with ``qps`` connections to one partner, and ``mrs`` memory regions."""

    qps: int
    mrs: int

    def __post_init__(self) -> None:
        here, there, new = _gid(2), _gid(4), _gid(3)
        numbers = range(0x100, 0x100 + self.qps)
        ends = [
            {
                "process": _PROCESS,
                "context": 1,
                "vqpn": n,
                "gid": here,
                "qpn": n,
                "peer_gid": there,
                "peer_qpn": n,
            }
            for n in numbers
        ]
        self.keys = [(key, key + 1) for key in range(self.mrs)]
        self.messages: list[tuple[str, Message, Schema]] = [
            (
                "suspend",
                {
                    "migration": "0" * 16,
                    "source": _SOURCE,
                    "key_digest": "0" * 64,
                    "datagrams": [],
                    "connections": [
                        {"gid": there, "qpn": n, "peer_gid": here, "peer_qpn": n} for n in numbers
                    ],
                },
                EXCHANGES["suspend"].request,
            ),
            (
                "prepare",
                {
                    **_CLAIM,
                    "destination": _SOURCE,
                    "connections": [
                        {
                            "gid": there,
                            "qpn": n,
                            "new_peer_gid": new,
                            "new_peer_qpn": n,
                            "sq_psn": n,
                            "rq_psn": n,
                            "peer": _PROCESS,
                        }
                        for n in numbers
                    ],
                    "keys": {_PROCESS: remote_keys.pack(self.keys)},
                    "places": [],
                },
                EXCHANGES["prepare"].request,
            ),
            (
                "the reply to prepare",
                {
                    "connections": [
                        {"gid": there, "qpn": n, "new_gid": there, "new_qpn": n, "process": _PROCESS}
                        for n in numbers
                    ],
                    "lost": [],
                },
                EXCHANGES["prepare"].reply,
            ),
        ]
        listed = [
            {
                "context": 1,
                "pd": 1,
                "addr": 4096 * key,
                "length": 4096,
                "access": 7,
                "vrkey": key,
                "prkey": key + 1,
            }
            for key in range(self.mrs)
        ]
        self._regions = [
            WIRE.pack("MRS", {}, listed[at : at + _IN_ONE], more=at + _IN_ONE < self.mrs)
            for at in range(0, self.mrs, _IN_ONE)
        ]
        self.document = {
            "migration": "0" * 16,
            "token": "0" * 64,
            "created": "2026-01-01T00:00:00+00:00",
            "container": "c" * 64,
            "left_running": False,
            "source": _SOURCE,
            "devices": {"rxe0": {"max_qp": 1 << 16}},
            "guests": [
                {
                    "process": _PROCESS,
                    "pid": 1,
                    "command": "python3",
                    "build_id": "0" * 40,
                    "objects": {"qps": self.qps, "mrs": self.mrs, "keys": self.mrs},
                    "contexts": [],
                    "names": [],
                    "qpns": [],
                }
            ],
            "partners": [{"name": "peer", "address": "192.0.2.4:50505", "connections": ends}],
            "internal": [],
            "datagrams": [],
        }

    def messages_there_and_back(self) -> None:
        """Check, encode and decode each message once, as their sender and their receiver do."""
        for what, message, schema in self.messages:
            data = agent_messages.encode(agent_messages.check(message, schema, what))
            assert agent_messages.decode(data, schema, what) == message

    def manifest_there_and_back(self) -> None:
        """Make the manifest's text, and take it as the destination does."""
        document = strict_json.parse(json.dumps(manifest.seal(self.document)).encode())
        manifest.check_whole(document)
        manifest_schema.validate(document)

    def keys_there_and_back(self) -> None:
        """Pack and unpack the remote keys."""
        packed: dict[str, Any] = {_PROCESS: remote_keys.pack(self.keys)}
        remote_keys.unpack(packed)

    def regions_of_a_process(self) -> None:
        """Take a process's answer to LIST_MRS and compare it with what is mapped: done before and after PARK."""
        everywhere = [(0, 1 << 48)]
        mapped = MemoryMap(everywhere, everywhere, everywhere)
        records = [one for packet in self._regions for one in WIRE.unpack(packet).records]
        regions = [MemoryRegion(one["addr"], one["length"], one["access"], one["vlkey"]) for one in records]
        assert not [region for region in regions if mapped.forbids(region)]

    def keys_of_a_process(self) -> None:
        """Take a restored process's answer to LIST_MRS and find out what its partners are told."""
        records = [one for packet in self._regions for one in WIRE.unpack(packet).records]
        assert len(by_domain(records)[1, 1]) == self.mrs

    def all_there_and_back(self) -> None:
        """Everything that a migration encodes, checks and decodes."""
        self.messages_there_and_back()
        self.manifest_there_and_back()
        self.keys_there_and_back()

    def only_as_json(self) -> None:
        """The same texts, written and read by Python's own `json` and looked at by nobody."""
        for message in (*(one for _, one, _ in self.messages), self.document):
            json.loads(json.dumps(message))
