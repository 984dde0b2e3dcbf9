"""The states of a migration's three roles, and the only transitions there are.

Who may run the application (send and receive on its queue pairs) is one host at a time: the *authority*. It
follows from the durable states alone::

    source       SUSPENDING ──► DUMPING ──► PARKED ◄──► CLAIMED ──► COMMITTED ──► DONE
                     │             │           ▲                        │
                     └──► UNDONE ◄─┘           └────────────────────────┘  given back unused

    destination                           RESTORING ──► COMMITTING ──► COMMITTED ──► DONE
                                              └─────► RELEASED ◄┴┄┄┄┄┄┄┄┄┄┄┄┘  before it has run

    partner          SUSPENDED ◄──► PREPARED ──► SWITCHED
                         ├──► LOST      │
                         └──► UNDONE ◄──┘

Of a move (``mover``) the dumped processes stay, frozen: what is ``PARKED`` goes back to ``UNDONE`` as long as no claim
on it can be committed. A person may abandon what is ``PARKED`` otherwise: then the application is nowhere, and is not
restored any more. A person may
also have another host decide in place of a source that is gone (adoption.py)::

    new arbiter  ADOPTING ──► PARKED, and on as a source
                    └──► SUPERSEDED

    source       PARKED, CLAIMED ──► SUPERSEDED ──► ABANDONED   a person says so
                                         └──► ADOPTING

The authority
is the source's host in every state but ``COMMITTED`` and ``DONE``; from the moment the source's
agent has written ``COMMITTED`` it is the destination's. That one write is the commit point. A destination
acts on it (state ``COMMITTED``) only when it has heard of it, and one that gives up waiting to hear writes
``RELEASED`` first, never acts on that claim again, and hands the authority back. So does one whose processes have
ended before they were let go (standing.py): nothing of them has run, and no partner has been told to switch.

A partner leaves ``SUSPENDED`` by itself only backwards (``LOST``: it will never prepare again, so no restore
can succeed without it noticing) and ``PREPARED`` only forwards. So it is never connected to both ends.
tests/unit/agent/roles/test_commit_protocol.py searches every interleaving of these rules.
"""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What this agent is to a migration; on one host it can be all three."""

    SOURCE = "source"
    DESTINATION = "destination"
    PARTNER = "partner"


class State(StrEnum):
    """Every state of every role."""

    SUSPENDING = "suspending"
    DUMPING = "dumping"
    PARKED = "parked"
    CLAIMED = "claimed"
    COMMITTED = "committed"
    DONE = "done"
    ABANDONED = "abandoned"
    UNDONE = "undone"
    ADOPTING = "adopting"
    SUPERSEDED = "superseded"

    RESTORING = "restoring"
    COMMITTING = "committing"
    RELEASED = "released"

    SUSPENDED = "suspended"
    PREPARED = "prepared"
    SWITCHED = "switched"
    LOST = "lost"


FIRST = {
    Role.SOURCE: State.SUSPENDING,
    Role.DESTINATION: State.RESTORING,
    Role.PARTNER: State.SUSPENDED,
}
"""In which a record begins; that of a source which has adopted another's checkpoint begins in ``ADOPTING``."""

TRANSITIONS: dict[Role, dict[State, frozenset[State]]] = {
    Role.SOURCE: {
        State.SUSPENDING: frozenset({State.DUMPING, State.UNDONE}),
        State.DUMPING: frozenset({State.PARKED, State.UNDONE}),
        # Undone: only of a move, whose processes stay, frozen, until another host is the authority.
        State.PARKED: frozenset({State.CLAIMED, State.ABANDONED, State.SUPERSEDED, State.UNDONE}),
        State.CLAIMED: frozenset({State.PARKED, State.COMMITTED, State.SUPERSEDED}),
        State.COMMITTED: frozenset({State.PARKED, State.DONE}),
        State.DONE: frozenset(),
        State.ABANDONED: frozenset(),
        State.UNDONE: frozenset(),
        State.ADOPTING: frozenset({State.PARKED, State.SUPERSEDED}),
        State.SUPERSEDED: frozenset({State.ADOPTING, State.ABANDONED}),
    },
    Role.DESTINATION: {
        State.RESTORING: frozenset({State.COMMITTING, State.RELEASED}),
        State.COMMITTING: frozenset({State.COMMITTED, State.RELEASED}),
        # Given back as long as CRIU's plugin has not let go what it holds (standing.py).
        State.COMMITTED: frozenset({State.DONE, State.RELEASED}),
        State.DONE: frozenset(),
        State.RELEASED: frozenset(),
    },
    Role.PARTNER: {
        State.SUSPENDED: frozenset({State.PREPARED, State.UNDONE, State.LOST}),
        State.PREPARED: frozenset({State.PREPARED, State.SUSPENDED, State.SWITCHED, State.UNDONE}),
        State.SWITCHED: frozenset(),
        State.UNDONE: frozenset(),
        State.LOST: frozenset(),
    },
}


def may_move(role: Role, old: State, new: State) -> bool:
    """Whether the protocol has this transition."""
    return new in TRANSITIONS[role].get(old, frozenset())


def is_final(role: Role, state: State) -> bool:
    """Whether nothing can change any more."""
    return not TRANSITIONS[role][state]
