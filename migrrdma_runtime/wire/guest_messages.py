"""The messages between a guest and its agent, read from the one definition there is: ``control.h``.

Nothing is written twice. The header keeps to a small subset of C (see its first comment), which is parsed here
into one :class:`Kind` per message type and one packed layout per structure::

    wire = Wire.load(path_of_control_h)
    packet = wire.pack("QUIESCE", {"kind": 0, "timeout_ms": 2000}, ident=7)
    message = wire.unpack(datagram)

Structures come and go as dictionaries; an array of bytes is ``bytes``, and :func:`text` makes a string of one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from migrrdma_runtime.base.errors import MigrRDMAError
from migrrdma_runtime.base.escaping import printable

_TYPE_CODES = {
    "uint8_t": "B",
    "uint16_t": "H",
    "uint32_t": "I",
    "uint64_t": "Q",
    "int32_t": "i",
    "int64_t": "q",
}

Values = dict[str, Any]


class WireError(MigrRDMAError):
    """A message, or the header that defines them, is not what it must be."""


def text(raw: bytes) -> str:
    """The string in a fixed array of bytes, up to its first zero; a process has chosen it."""
    return printable(raw.split(b"\0", 1)[0].decode(errors="replace"))


@dataclass(frozen=True)
class Layout:
    """One structure of the header."""

    name: str
    fields: tuple[tuple[str, str], ...]
    """Member names with their codes for :mod:`struct`; ``20s`` for an array of 20 bytes."""

    @cached_property
    def packer(self) -> struct.Struct:
        """The structure for :mod:`struct`."""
        return struct.Struct("<" + "".join(code for _, code in self.fields))

    @property
    def size(self) -> int:
        """Bytes."""
        return self.packer.size

    def pack(self, values: Mapping[str, Any]) -> bytes:
        """The bytes of a structure with these members; those not named are zero."""
        unknown = set(values) - {name for name, _ in self.fields}
        if unknown:
            raise WireError(f"struct {self.name} has no member {', '.join(sorted(unknown))}")
        items = [self._value(name, code, values.get(name)) for name, code in self.fields]
        try:
            return self.packer.pack(*items)
        except struct.error as exc:
            raise WireError(f"struct {self.name} cannot hold {dict(values)}: {exc}") from exc

    def _value(self, name: str, code: str, value: Any) -> Any:
        if not code.endswith("s"):
            return 0 if value is None else value
        raw = value.encode() if isinstance(value, str) else bytes(value or b"")
        if len(raw) > int(code[:-1]):
            raise WireError(f"{self.name}.{name} holds {code[:-1]} bytes, not {len(raw)}")
        return raw

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the members."""
        return tuple(name for name, _ in self.fields)

    def unpack(self, raw: bytes | memoryview) -> Values:
        """The members of a structure of exactly `size` bytes."""
        return dict(zip(self.names, self.packer.unpack(raw), strict=True))

    def unpack_all(self, raw: memoryview) -> list[Values]:
        """The members of each of the structures that lie one after the other; of none that has no members."""
        if not self.fields:
            return []
        return [dict(zip(self.names, one, strict=True)) for one in self.packer.iter_unpack(raw)]


@dataclass(frozen=True)
class Kind:
    """One type of message."""

    number: int
    name: str
    body: Layout
    record: Layout
    reply: str
    """The name of the type that answers it; ``NONE`` for one that is an answer itself."""


@dataclass
class Message:
    """A received message; ``records`` of a reply that came in parts are joined by the caller."""

    kind: str
    ident: int
    body: Values = field(default_factory=dict)
    records: list[Values] = field(default_factory=list)
    more: bool = False
    srqs: bool = False


class Wire:
    """The parsed header."""

    def __init__(self, source: str) -> None:
        code = re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL).replace("\\\n", " ")
        self.constants = _constants(code)
        self.layouts = _layouts(code, self.constants)
        self.kinds = _kinds(code, self.layouts)
        self._by_number = {kind.number: kind for kind in self.kinds.values()}
        self._header = self.layouts["mig_header"]

    @classmethod
    def load(cls, path: Path) -> Wire:
        """Parse the header at ``path``."""
        try:
            return cls(path.read_text())
        except OSError as exc:
            raise WireError(f"cannot read the message definitions in {path}: {exc.strerror}") from exc

    def pack(
        self,
        name: str,
        body: Mapping[str, Any] | None = None,
        records: Iterable[Mapping[str, Any]] = (),
        *,
        ident: int = 0,
        more: bool = False,
        srqs: bool = False,
    ) -> bytes:
        """One message: ``body`` and ``records`` as members by name, those not named being zero.

        ``srqs``: its numbers are those of shared receive queues.
        """
        kind = self.kinds[name]
        parts = [kind.record.pack(record) for record in records]
        header = {
            "magic": self.constants["MIG_CONTROL_MAGIC"],
            "version": self.constants["MIG_CONTROL_VERSION"],
            "type": kind.number,
            "id": ident,
            "count": len(parts),
            "flags": more * self.constants["MIG_FLAG_MORE"] | srqs * self.constants["MIG_FLAG_SRQS"],
        }
        packet = self._header.pack(header) + kind.body.pack(body or {}) + b"".join(parts)
        if len(packet) > self.constants["MIG_MESSAGE_MAX"]:
            raise WireError(f"{name} with {len(parts)} records is longer than a message may be")
        return packet

    def unpack(self, packet: bytes) -> Message:
        """Check everything that the header says of itself before anything is believed."""
        if len(packet) < self._header.size:
            raise WireError(f"a message of {len(packet)} bytes is shorter than its header")
        header = self._header.unpack(packet[: self._header.size])
        if header["magic"] != self.constants["MIG_CONTROL_MAGIC"]:
            raise WireError(f"a message begins with {header['magic']:#x}: not a guest's")
        if header["version"] != self.constants["MIG_CONTROL_VERSION"]:
            raise WireError(f"the guest speaks version {header['version']} of the protocol")
        kind = self._by_number.get(header["type"])
        if kind is None:
            raise WireError(f"message type {header['type']} is not known")
        rest = memoryview(packet)[self._header.size :]
        wanted = kind.body.size + header["count"] * kind.record.size
        if len(rest) != wanted or (header["count"] and not kind.record.size):
            raise WireError(f"{kind.name} with {header['count']} records has {len(rest)} bytes, not {wanted}")
        more, srqs = self.constants["MIG_FLAG_MORE"], self.constants["MIG_FLAG_SRQS"]
        known = more | (srqs if kind.name == "KEYS" else 0)
        if header["flags"] & ~known or header["reserved"]:
            raise WireError(f"{kind.name} sets bits that have no meaning")
        return Message(
            kind.name,
            header["id"],
            kind.body.unpack(rest[: kind.body.size]),
            kind.record.unpack_all(rest[kind.body.size :]),
            bool(header["flags"] & more),
            bool(header["flags"] & srqs),
        )


def _constants(code: str) -> dict[str, int]:
    constants = {
        name: int(value, 0) for name, value in re.findall(r"#define (\w+) (0x[0-9a-fA-F]+|\d+)\s", code)
    }
    for members in re.findall(r"enum \w+ \{(.*?)\}", code, flags=re.DOTALL):
        constants |= {name: int(value, 0) for name, value in re.findall(r"(\w+) = (\w+)", members)}
    return constants


def _layouts(code: str, constants: Mapping[str, int]) -> dict[str, Layout]:
    layouts = {}
    for name, members in re.findall(r"struct (\w+) \{(.*?)\};", code, flags=re.DOTALL):
        fields = []
        offset = 0
        for declaration in filter(None, (part.strip() for part in members.split(";"))):
            match = re.fullmatch(r"(\w+) (\w+)(?:\[(\w+)\])?", declaration)
            if match is None or match[1] not in _TYPE_CODES:
                raise WireError(f"struct {name}: cannot read {declaration!r}")
            letter = _TYPE_CODES[match[1]]
            if match[3]:
                if match[1] != "uint8_t":
                    raise WireError(f"struct {name}: only bytes come in arrays, not {declaration!r}")
                letter = f"{constants[match[3]] if match[3] in constants else int(match[3])}s"
            alignment = struct.calcsize("<" + letter) if not match[3] else 1
            if offset % alignment:
                raise WireError(f"struct {name}: {match[2]} is not aligned, the compiler would pad")
            offset += struct.calcsize("<" + letter)
            fields.append((match[2], letter))
        widest = max((struct.calcsize("<" + c) for _, c in fields if not c.endswith("s")), default=1)
        if offset % widest:
            raise WireError(f"struct {name}: the compiler would pad its end")
        layouts[name] = Layout(name, tuple(fields))
    return layouts


def _kinds(code: str, layouts: Mapping[str, Layout]) -> dict[str, Kind]:
    kinds = {}
    for number, name, body, record, reply in re.findall(r"X\((\d+), (\w+), (\w+), (\w+), (\w+)\)", code):
        kinds[name] = Kind(int(number), name, layouts[body], layouts[record], reply)
    if not kinds:
        raise WireError("the header defines no message")
    return kinds


WIRE = Wire.load(Path(__file__).with_name("control.h"))
"""The header travels in the package; the guest library of the same package was compiled with it."""
