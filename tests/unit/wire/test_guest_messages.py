"""The message definitions as Python reads them from the C header."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from migrrdma_runtime.wire.guest_messages import Wire, WireError, text

HEADER = Path(__file__).resolve().parents[3] / "guest" / "wire" / "control.h"
WIRE = Wire.load(HEADER)


def test_sizes_and_offsets_are_the_compilers(tmp_path: Path) -> None:
    lines = []
    for layout in WIRE.layouts.values():
        lines.append(f'printf("{layout.name} %zu\\n", sizeof(struct {layout.name}));')
        for member, _ in layout.fields:
            lines.append(
                f'printf("{layout.name}.{member} %zu\\n", __builtin_offsetof(struct {layout.name}, {member}));'
            )
    program = f'#include <stdio.h>\n#include "{HEADER}"\nint main(void) {{ {" ".join(lines)} return 0; }}\n'
    (tmp_path / "sizes.c").write_text(program)
    subprocess.run(["gcc", "-o", tmp_path / "sizes", tmp_path / "sizes.c"], check=True)
    out = subprocess.run([tmp_path / "sizes"], capture_output=True, text=True, check=True).stdout
    measured = {name: int(value) for name, value in (line.split() for line in out.splitlines())}
    for layout in WIRE.layouts.values():
        assert measured[layout.name] == layout.size
        offset = 0
        for member, code in layout.fields:
            assert measured[f"{layout.name}.{member}"] == offset
            offset += int(code[:-1]) if code.endswith("s") else {"B": 1, "H": 2, "I": 4, "i": 4, "Q": 8}[code]


@pytest.mark.parametrize("name", WIRE.kinds)
def test_every_kind_survives_the_way(name: str) -> None:
    kind = WIRE.kinds[name]
    records: list[dict[str, int]] = [{}, {}] if kind.record.size else []
    message = WIRE.unpack(WIRE.pack(name, None, records, ident=9))
    assert (message.kind, message.ident, len(message.records)) == (name, 9, len(records))
    assert kind.reply == "NONE" or kind.reply in WIRE.kinds


def test_values_survive_the_way() -> None:
    packet = WIRE.pack(
        "REBUILD", {"context": 3, "device": "mlx5_0"}, [{"port": 1, "index": 2, "new_index": 5}], more=True
    )
    message = WIRE.unpack(packet)
    assert message.body["context"] == 3
    assert text(message.body["device"]) == "mlx5_0"
    assert message.records == [{"port": 1, "index": 2, "new_port": 0, "new_index": 5}]
    assert message.more and not message.srqs


def test_what_numbers_are_of_survives_the_way() -> None:
    numbers = WIRE.pack("KEYS", {"peer": 7}, [{"vrkey": 1, "prkey": 2}], srqs=True)
    assert WIRE.unpack(numbers).srqs and not WIRE.unpack(numbers).more
    with pytest.raises(WireError, match="no meaning"):
        WIRE.unpack(WIRE.pack("PLACES", srqs=True))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda p: p[:10], "shorter than its header"),
        (lambda p: b"\0" * 4 + p[4:], "not a guest's"),
        (lambda p: p[:4] + b"\x09" + p[5:], "version 9"),
        (lambda p: p[:6] + b"\xff\x00" + p[8:], "type 255"),
        (lambda p: p[:12] + b"\x05" + p[13:], "5 records"),
        (lambda p: p[:16] + b"\x02" + p[17:], "no meaning"),
        (lambda p: p[:20] + b"\x01" + p[21:], "no meaning"),
        (lambda p: p + b"\0", "bytes, not"),
        (lambda p: p[:-1], "bytes, not"),
    ],
)
def test_damage_is_refused(damage: object, complaint: str) -> None:
    packet = WIRE.pack("QUIESCE", {"kind": 2}, [{"context": 1, "vqpn": 17}])
    with pytest.raises(WireError, match=complaint):
        WIRE.unpack(damage(packet))  # type: ignore[operator]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(WireError, match="no member"):
        WIRE.pack("PARK", {"flag": 1})
    with pytest.raises(WireError, match="64 bytes"):
        WIRE.pack("REBUILD", {"device": "x" * 65})
    with pytest.raises(WireError, match="cannot hold"):
        WIRE.pack("PARK", {"flags": 1 << 32})
    with pytest.raises(WireError, match="longer than a message"):
        WIRE.pack("KEYS", {"peer": 1}, [{}] * 5000)


@pytest.mark.parametrize(
    "members",
    ["uint8_t a; uint32_t b;", "uint64_t a; uint32_t b;", "char a;", "uint32_t a[4];", "uint32_t *a;"],
)
def test_header_that_the_compiler_would_read_otherwise_is_refused(members: str) -> None:
    with pytest.raises(WireError):
        Wire(
            HEADER.read_text().replace(
                "struct mig_keys {", f"struct mig_odd {{ {members} }};\nstruct mig_keys {{"
            )
        )
