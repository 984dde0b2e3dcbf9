"""Moves of a process that has both ends of a conversation in datagrams."""

from __future__ import annotations

from typing import Any

from guest_agent import WIRE, Agent, Program
from guest_moves import GIDS, SAME_INDEX

OWN, PEER, FORMER, BLIND = (
    WIRE.constants[f"MIG_ADDRESS_{name}"] for name in ("OWN", "PEER", "FORMER", "BLIND")
)
_UD = 4


Record = dict[str, Any]


def _places(
    before: list[Record], after: list[Record], own: dict[int, tuple[bytes, bytes]], new: dict[int, bytes]
) -> list[Record]:
    now = {(qp["context"], qp["vqpn"]): qp for qp in after}
    return [
        {
            "vqpn": qp["vqpn"],
            "qpn": qp["pqpn"],
            "new_qpn": now[qp["context"], qp["vqpn"]]["next_pqpn"],
            "vgid": own[qp["context"]][0],
            "gid": own[qp["context"]][1],
            "new_gid": new[qp["context"]],
        }
        for qp in before
        if qp["type"] == _UD and qp["context"] in new
    ]


def addresses(agent: Agent) -> list[Record]:
    return agent.ask("LIST_ADDRESSES").records


def move(agent: Agent, devices: dict[int, int], *, restored: Program | None = None) -> None:
    """Rebuild these contexts on these devices, and tell everybody where their queue pairs are."""
    agent.quiesce()
    agent.ask("PARK", {"flags": 1 if restored else 0})
    if restored:
        restored.tell("restore")
        agent.wake()
    own = {one["context"]: (one["vgid"], one["gid"]) for one in addresses(agent) if one["kind"] == OWN}
    before = agent.qps()
    after: list[Record] = []
    for context, device in devices.items():
        body = {"context": context, "flags": 1 if restored else 0, "device": f"fake{device}"}
        after += [qp for qp in agent.ask("REBUILD", body, [SAME_INDEX]).records if qp["context"] == context]
    agent.ask("PLACES", {}, _places(before, after, own, {c: GIDS[d] for c, d in devices.items()}))
    agent.resume()
