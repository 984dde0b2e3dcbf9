"""A process that speaks the guest's side of the control protocol and pretends to have queue pairs.

It is a process of its own because the agent learns from the kernel who is at the other end of its socket. It
is told what it is on stdin, one JSON object, and afterwards what to do, a word to a line; it tells on stdout,
one JSON object to a line, what the agent asks of it and which connections it would send on.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import sys
import time
from pathlib import Path
from typing import Any

from migrrdma_runtime.wire.guest_messages import WIRE, Message

RUNNING, QUIESCED, PARKED, REBUILT = 1, 3, 4, 5
_RC, _RTS, _ERR = 2, 3, 6
_FOR_OTHERS = 2 | 4
"""``IBV_ACCESS_REMOTE_WRITE`` and ``REMOTE_READ``."""


class FakeGuest:
    """The process."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.state = spec.get("state", RUNNING)
        self.faults: dict[str, str] = spec.get("faults", {})
        self.pairs = {(qp["context"], qp["vqpn"]): dict(qp) for qp in spec["qps"]}
        self.connection: socket.socket | None = None
        self.parked = False
        self.waits_alone = 0
        self.drains_for = 0
        self.questions = 0

    def connect(self) -> None:
        """Connect and introduce itself."""
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        folder, name = os.path.split(self.spec["socket"])
        os.chdir(folder)  # the path may be longer than a socket's address
        self.connection.connect(name)
        hello = {
            "token": int(self.spec["name"], 16),
            "pid": 7,
            "state": self.state,
            "contexts": len(self.spec["contexts"]),
            "build_id": bytes.fromhex(self.spec["build_id"]),
            "differs": self.spec.get("differs", 0),
        }
        self._send("HELLO", 0, hello)

    def run(self) -> None:
        """Serve until stdin ends."""
        selector = selectors.DefaultSelector()
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        self.connect()
        while True:
            if self.connection is not None and self.connection.fileno() not in selector.get_map():
                selector.register(self.connection, selectors.EVENT_READ)
            for key, _ in selector.select(0.02 if self.parked else None):
                if key.fd == sys.stdin.fileno():
                    lines = os.read(key.fd, 1 << 16).decode().split("\n")
                    if lines == [""]:
                        return
                    for line in filter(None, lines):
                        self._obey(line)
                elif self.connection is not None:
                    self._serve(selector)
            if self.parked and self._is_called():
                self.parked = False
                self._reconnect()

    def _obey(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "connect":
            self.connect()
        elif word == "fault":
            kind, _, what = rest.partition(" ")
            self.faults[kind] = what
        elif word == "close":  # a queue pair, by context and number
            context, vqpn = map(int, rest.split())
            del self.pairs[context, vqpn]
        elif word == "fail":  # into the error state
            context, vqpn = map(int, rest.split())
            self.pairs[context, vqpn]["state"] = _ERR
        elif word == "reuse":  # for another connection
            context, vqpn = map(int, rest.split())
            self.pairs[context, vqpn] |= {"quiesced": False, "dest_pqpn": 0x777}
        elif word == "disconnect" and self.connection is not None:
            self.spec["reconnects"] = False
            self.connection.shutdown(socket.SHUT_RDWR)
        elif word == "send" and self.connection is not None:
            self.connection.send(bytes.fromhex(rest))
        elif word == "ask":  # where is the queue pair of that GID and number? As that one of its own
            self._ask(*rest.split())
        elif word == "show":
            self._tell({"shown": self._living()})

    def _serve(self, selector: selectors.BaseSelector) -> None:
        assert self.connection is not None
        try:
            data = self.connection.recv(WIRE.constants["MIG_MESSAGE_MAX"])
        except ConnectionResetError:  # an agent that has ended with something of ours unread
            data = b""
        if not data:
            selector.unregister(self.connection)
            self.connection.close()
            self.connection = None
            self._tell({"disconnected": True})
            if self.state >= PARKED:  # only a call brings it back
                self.parked = True
                return
            if self.spec.get("goes_on_without_an_agent"):
                self._on_undo(Message("UNDO", 0))
            if self.spec.get("reconnects"):
                self._reconnect()
            return
        message = WIRE.unpack(data)
        if message.kind == "WELCOME":
            self._tell({"welcome": True})
            return
        if message.kind == "THERE":
            self._hear(message)
            return
        self._tell({"got": message.kind, "records": len(message.records)})
        fault = self.faults.pop(message.kind, "")
        if fault.startswith("twice "):
            fault = self.faults[message.kind] = fault.removeprefix("twice ")
        if fault == "silent":
            return
        if fault == "garbage":
            self.connection.send(b"\xff" * 100)
            return
        if fault == "exit":
            sys.exit(0)
        if fault.startswith("binds "):  # something that cannot be moved, just before
            self.spec["reasons"] = [fault.removeprefix("binds ")]
            fault = ""
        if fault == "connects":  # another queue pair, just before
            (context, vqpn), pair = next(iter(self.pairs.items()))
            numbers = {"vqpn": vqpn + 0x400, "pqpn": vqpn + 0x400}
            self.pairs[context, vqpn + 0x400] = {**pair, **numbers}
            fault = ""
        if fault == "fails-a-queue-pair":  # meanwhile
            next(iter(self.pairs.values()))["state"] = _ERR
            fault = ""
        if fault == "reconnects":  # one to another end, just before
            next(iter(self.pairs.values()))["dest_pqpn"] += 0x400
            fault = ""
        if fault.startswith("does-it "):  # and is told again
            getattr(self, f"_on_{message.kind.lower()}")(message)
        if fault:
            names = [{"context": c, "vqpn": v} for c, v in self.pairs]
            self._send("DONE", message.ident, {"error": 110, "text": fault.encode()}, names)
            return
        answer = getattr(self, f"_on_{message.kind.lower()}")(message)
        self._send(answer[0], message.ident, *answer[1:])
        if message.kind == "PARK" and message.body["flags"] & WIRE.constants["MIG_PARK_CLOSE"]:
            selector.unregister(self.connection)
            self.connection.close()
            self.connection = None
            self.parked = True
            self._tell({"parked": True})

    def _ask(self, dgid: str, qpn: str, vgid: str, vqpn: str, gid: str, pqpn: str) -> None:
        body: dict[str, Any] = {"context": 1, "qpn": int(qpn), "vqpn": int(vqpn), "pqpn": int(pqpn)}
        body |= {name: bytes.fromhex(one) for name, one in (("dgid", dgid), ("vgid", vgid), ("gid", gid))}
        self.questions += 1
        self._send("WHERE", self.questions, body)

    def _hear(self, message: Message) -> None:
        there = message.body
        self._tell(
            {
                "there": message.ident,
                "error": there["error"],
                "text": bytes(there["text"]).rstrip(b"\0").decode(),
                "gid": bytes(there["gid"]).hex(),
                "qpn": there["qpn"],
                "keys": [[one["vrkey"], one["prkey"]] for one in message.records],
            }
        )

    def _is_called(self) -> bool:
        return Path(self.spec["socket"]).with_name(f"resume-{self.spec['name']}").exists()

    def _reconnect(self) -> None:
        """As the guest library does: try until an agent is there again."""
        for _ in range(1000):
            try:
                self.connect()
                return
            except OSError:
                time.sleep(0.02)  # nothing says when a socket appears; the library has a timer, too

    def _on_inventory(self, _message: Message) -> Any:
        reasons = self.spec.get("reasons", [])
        counts = {"contexts": 1, "qps": len(self.pairs), "mrs": len(self.spec.get("regions", []))}
        body = {"migratable": not reasons, "mr_bytes": 1 << 20, **counts}
        return "INVENTORY_IS", body, [{"text": reason.encode()} for reason in reasons]

    def _on_list_contexts(self, _message: Message) -> Any:
        device = self.spec["device"].encode()
        return (
            "CONTEXTS",
            {},
            [
                {"context": one, "device": device, "real_device": device, "ports": 1}
                for one in self.spec["contexts"]
            ],
        )

    def _on_list_qps(self, _message: Message) -> Any:
        return "QPS", {}, [self._record(pair) for pair in self.pairs.values()]

    def _on_find(self, message: Message) -> Any:
        """Those of that number; where the GID of the question is now, by ``known``."""
        now = self.spec.get("known", {}).get(bytes(message.body["vgid"]).hex(), "0" * 32)
        found = [pair for pair in self.pairs.values() if pair["vqpn"] == message.body["vqpn"]]
        return "QPS", {}, [{**self._record(pair), "sgid": bytes.fromhex(now)} for pair in found]

    def _on_list_mrs(self, _message: Message) -> Any:
        keys = self.spec.get("rkeys", [])
        if not isinstance(keys, dict):  # all of the first context
            keys = {self.spec["contexts"][0]: keys}
        regions = self.spec.get("regions", [])
        return (
            "MRS",
            {},
            [
                *(
                    {
                        "context": int(context),
                        "vrkey": key,
                        "prkey": key + int(context),
                        "access": _FOR_OTHERS,
                    }
                    for context, ones in keys.items()
                    for key in ones
                ),
                *self.spec.get("mrs", []),  # in full
                *({"addr": a, "length": n, "access": 1} for a, n in regions),
            ],
        )

    def _on_list_addresses(self, _message: Message) -> Any:
        def packed(one: dict[str, Any]) -> dict[str, Any]:
            return {
                key: bytes.fromhex(value) if isinstance(value, str) else value for key, value in one.items()
            }

        return "ADDRESSES", {}, [packed(one) for one in self.spec.get("addresses", [])]

    def _on_places(self, message: Message) -> Any:
        self.spec["places"] = [
            {key: bytes(value).hex() if "gid" in key else value for key, value in one.items()}
            for one in message.records
        ]
        return "DONE", {}

    def _on_quiesce(self, message: Message) -> Any:
        self.state = QUIESCED
        self.waits_alone = message.body["alone_s"]
        self.drains_for = message.body["timeout_ms"]
        for pair in self._named(message):
            pair["quiesced"] = True
        return "DONE", {}

    def _on_undo(self, _message: Message) -> Any:
        self.state = RUNNING
        for pair in self.pairs.values():
            for key in ("next", "next_sgid", "next_dest"):
                pair.pop(key, None)
            pair["quiesced"] = False
        return "DONE", {}

    def _on_park(self, _message: Message) -> Any:
        self.state = PARKED
        return "DONE", {}

    def _on_rebuild(self, message: Message) -> Any:
        self.state = REBUILT
        made = []
        for pair in self.pairs.values():
            if pair["context"] == message.body["context"]:
                pair["next"] = pair["pqpn"] + self.spec["offset"]
                pair["next_sgid"] = self.spec["gid"]
                made.append(self._record(pair))
        return "QPS", {}, made

    def _on_prepare(self, message: Message) -> Any:
        made = []
        for pair in self._named(message):
            if self.state != QUIESCED or pair["quiesced"]:
                pair["next"] = pair["pqpn"] + 0x7000
            made.append(self._record(pair))
        return "QPS", {}, made

    def _on_connect(self, message: Message) -> Any:
        for one in message.records:
            pair = self.pairs[one["context"], one["vqpn"]]
            pair["next_dest"] = [bytes(one["dgid"]).hex(), one["dest_pqpn"]]
            pair["psns"] = [one["sq_psn"], one["rq_psn"]]
            pair["peer"] = one["peer"]
        return "DONE", {}

    def _on_keys(self, message: Message) -> Any:
        pairs = [[one["vrkey"], one["prkey"]] for one in message.records]
        if message.srqs:
            self.spec.setdefault("srqs", {})[message.body["peer"]] = pairs
            return "DONE", {}
        self.spec.setdefault("learnt", {})[message.body["peer"]] = len(pairs)
        self.spec.setdefault("keys", {})[message.body["peer"]] = pairs
        return "DONE", {}

    def _on_resume(self, _message: Message) -> Any:
        self.state = RUNNING
        for pair in self.pairs.values():
            pair["quiesced"] = False
            if "next" in pair:
                pair["pqpn"] = pair.pop("next")
                # One that has failed is connected to nothing.
                pair["dgid"], pair["dest_pqpn"] = pair.pop("next_dest", (pair["dgid"], pair["dest_pqpn"]))
                pair["sgid"] = pair.pop("next_sgid", pair["sgid"])
        return "DONE", {}

    def _named(self, message: Message) -> list[dict[str, Any]]:
        if message.body["kind"] == WIRE.constants["MIG_SCOPE_ALL"]:
            return list(self.pairs.values())
        return [self.pairs[one["context"], one["vqpn"]] for one in message.records]

    def _record(self, pair: dict[str, Any]) -> dict[str, Any]:
        return {
            "context": pair["context"],
            "vqpn": pair["vqpn"],
            "pqpn": pair["pqpn"],
            "next_pqpn": pair.get("next", 0),
            "type": pair.get("type", _RC),
            "state": pair.get("state", _RTS),
            "dest_vqpn": pair["dest_pqpn"],
            "dest_pqpn": pair["dest_pqpn"],
            "port": 1,
            "sgid_index": 1,
            "pd": pair.get("pd", 0),
            "sgid": bytes.fromhex(pair["sgid"]),
            "dgid": bytes.fromhex(pair["dgid"]),
        }

    def _living(self) -> Any:
        """The connections that the application can send on now, and in which state everything is."""
        return {
            "state": self.state,
            "qps": [
                {
                    key: pair.get(key)
                    for key in ("pqpn", "sgid", "dgid", "dest_pqpn", "psns", "quiesced", "peer")
                }
                for pair in self.pairs.values()
            ],
            "learnt": self.spec.get("learnt", {}),
            "keys": self.spec.get("keys", {}),
            "srqs": self.spec.get("srqs", {}),
            "places": self.spec.get("places", []),
            "waits_alone": self.waits_alone,
            "drains_for": self.drains_for,
            "image": list(self.pairs.values()),
        }

    def _send(self, name: str, identity: int, body: Any, records: Any = ()) -> None:
        assert self.connection is not None
        # An agent that has ended since it asked; the next thing that is read from it is its end.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(WIRE.pack(name, body, records, ident=identity))

    def _tell(self, event: dict[str, Any]) -> None:
        print(json.dumps(event), flush=True)


def main() -> None:
    spec = json.loads(os.read(0, 1 << 20).partition(b"\n")[0])
    FakeGuest(spec).run()


if __name__ == "__main__":
    main()
