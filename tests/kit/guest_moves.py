"""Moves of a process that holds both ends of its connections, step by step."""

from __future__ import annotations

from guest_agent import MOVING, PARTNER, STATES, Agent, Program

GIDS = [bytes(10) + b"\xff\xff\x0a\x00\x00" + bytes([last]) for last in (1, 2)]
SAME_INDEX = {"port": 1, "index": 1, "new_port": 1, "new_index": 1}
TRAFFIC = [
    ("-q", "4"),
    ("-q", "4", "-e"),
    ("-q", "3", "-c"),
    ("-q", "3", "-e", "-c", "-t"),
    ("-q", "4", "-S"),
    ("-q", "3", "-e", "-c", "-t", "-S"),
    ("-q", "3", "-e", "-c", "-t", "-w"),
]


def ids(options: tuple[str, ...]) -> str:
    return " ".join(options)


RTS = 3


def rest(agent: Agent) -> None:
    """Quiesce and park at a moment when no connection is being made.

    Its ends have told each other numbers that would not be theirs any more when they connect.
    """
    for _ in range(500):
        agent.quiesce()
        agent.ask("PARK")
        if all(qp["state"] == RTS for qp in agent.qps()):
            return
        agent.ask("UNDO")
    raise AssertionError("some connection is always being made")


def move(
    agent: Agent, devices: tuple[int, int], *, restored: Program | None = None, whole: bool = False
) -> None:
    """Rebuild both contexts, on these devices, in place or as a restored process does.

    With ``whole`` only while all QPs are connected, for which a program that makes connections is waited for.
    """
    if whole:
        rest(agent)
    else:
        agent.quiesce()
        agent.ask("PARK", {"flags": 1 if restored else 0})
    if restored:
        restored.tell("restore")
        agent.wake()
        assert agent.hello["state"] == STATES["MIG_STATE_PARKED"]
    contexts = [c["context"] for c in agent.ask("LIST_CONTEXTS").records]
    for context, device in zip(contexts, devices, strict=True):
        agent.ask(
            "REBUILD",
            {"context": context, "flags": 1 if restored else 0, "device": f"fake{device}"},
            [SAME_INDEX],
        )
    first, second = contexts
    agent.connect_all({first: (GIDS[devices[0]], MOVING), second: (GIDS[devices[1]], PARTNER)})
    agent.give_keys(first, MOVING)
    agent.give_keys(second, PARTNER)
    agent.resume()


def rebuild_and_resume(agent: Agent) -> None:
    """Of a parked process: make both contexts again, each on the other one's device, and go on."""
    for context in (1, 2):
        agent.ask("REBUILD", {"context": context, "device": f"fake{2 - context}"}, [SAME_INDEX])
    agent.connect_all({1: (GIDS[1], MOVING), 2: (GIDS[0], PARTNER)})
    agent.give_keys(1, MOVING)
    agent.give_keys(2, PARTNER)
    agent.resume()


def partner_move(agent: Agent, device: int, partner_device: int = 1) -> None:
    """The first context moves, the second stays and gets new QPs beside the old ones."""
    first, second = (c["context"] for c in agent.ask("LIST_CONTEXTS").records)
    agent.ask("PREPARE", {"kind": 1, "context": second})
    agent.quiesce()
    agent.ask("PARK")
    agent.ask(
        "REBUILD",
        {"context": first, "device": f"fake{device}"},
        [SAME_INDEX],
    )
    agent.connect_all({first: (GIDS[device], MOVING), second: (GIDS[partner_device], PARTNER)})
    agent.give_keys(first, MOVING)
    agent.resume()


def switch(agent: Agent) -> None:
    """New QPs for both ends of every connection, without a park: as a partner does it."""
    agent.ask("PREPARE")
    agent.quiesce()
    first, second = (c["context"] for c in agent.ask("LIST_CONTEXTS").records)
    agent.connect_all({first: (GIDS[0], MOVING), second: (GIDS[1], PARTNER)})
    agent.give_keys(first, MOVING)
    agent.give_keys(second, PARTNER)
    agent.resume()


def move_alone(agent: Agent, device: int = 0, *, restored: Program | None = None) -> None:
    """The process has one context, connected to itself; it is rebuilt in place, or as a restored process does."""
    [context] = (c["context"] for c in agent.ask("LIST_CONTEXTS").records)
    agent.quiesce()
    agent.ask("PARK", {"flags": 1 if restored else 0})
    if restored:
        restored.tell("restore")
        agent.wake()
    agent.ask(
        "REBUILD",
        {"context": context, "flags": 1 if restored else 0, "device": f"fake{device}"},
        [SAME_INDEX],
    )
    agent.connect_all({context: (GIDS[device], MOVING)})
    agent.give_keys(context, MOVING)
    agent.resume()
