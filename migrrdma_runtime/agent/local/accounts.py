"""Whose account it goes to what processes cost their agent: their container's, or, outside of containers, their user's.

Processes outside of containers have nothing in common but the socket that they come in by. Were they one account, any
user of the host could take all of it.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from weakref import WeakValueDictionary

from migrrdma_runtime.agent.local.budget import Budget
from migrrdma_runtime.agent.local.owners import owner, whose
from migrrdma_runtime.base.allowed_rate import Bucket, Rate

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 1024
"""Of one account, greeted or not: none can keep the others from their agent."""

BURST, PER_SECOND = 1024, 50
"""New connections of one account: so many at once, as after an agent's restart, and then so many in a second."""

PART_OF_USERS = 4
"""What part of this process's descriptors the connections of all users together may have, but for root's: one who has
been given subordinate numbers (``/etc/subuid``) is as many users as he likes."""

_KEPT_S = 60.0
"""A user's account after its last connection: by then all has come back that it had taken."""


class _Room:
    """For the connections of several accounts together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._said = Bucket(Rate(1, 1 / _KEPT_S), asyncio.get_running_loop().time())
        self.taken = 0

    def is_full(self) -> bool:
        if self.taken < self._most:
            return False
        # Whoever is refused may be another user each time.
        if not self._said.missing(1, asyncio.get_running_loop().time()):
            self._said.take(1)
            _log.warning("the host's users have %d connections, as many as all of them may have", self._most)
        return True


class Account:
    """What one container, or one user outside of containers, has taken."""

    def __init__(self, name: str, room: _Room | None = None) -> None:
        self._room = room
        self.budget = Budget(name)
        self._name = name
        self._open = 0
        self._left = Bucket(Rate(BURST, PER_SECOND), asyncio.get_running_loop().time())
        self._is_refused = False

    def __str__(self) -> str:
        """How a message names it."""
        return whose(self._name)

    def rest(self) -> float:
        """For how many seconds no new connection is to be taken."""
        return max(self._left.missing(1, asyncio.get_running_loop().time()), self.budget.rest())

    def admit(self) -> bool:
        """Whether there is room for one more connection, which is counted then until it is :meth:`ended`."""
        if self.rest():
            reason = "connects too often, or has taken its share of the processor"
        else:
            self._left.take(1)
            if self._room is not None and self._room.is_full():
                return False
            if self._open < MAX_CONNECTIONS:
                self._count(1)
                self._is_refused = False
                return True
            reason = f"has {MAX_CONNECTIONS} connections already"
        if not self._is_refused:  # once: it may try as often as it can
            _log.warning("%s %s", self, reason)
        self._is_refused = True
        return False

    def ended(self) -> None:
        """A connection that was admitted is closed."""
        self._count(-1)
        if not self._open:
            # Who connects and leaves again and again begins no new account: the timer keeps this one.
            asyncio.get_running_loop().call_later(_KEPT_S, self.rest)

    def _count(self, more: int) -> None:
        self._open += more
        if self._room is not None:
            self._room.taken += more


class Accounts:
    """Those of all who have anything open, or have had until just now."""

    def __init__(self) -> None:
        self._accounts: WeakValueDictionary[str, Account] = WeakValueDictionary()
        self._of_users: _Room | None = None

    def _room_of_users(self) -> _Room | None:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if self._of_users is None and limit != resource.RLIM_INFINITY:
            self._of_users = _Room(max(1, limit // PART_OF_USERS))
        return self._of_users

    def of(self, container: str, user: int) -> Account:
        """The container's; that of the user if it is none."""
        name = owner(container, user)
        account = self._accounts.get(name)
        if account is None:
            room = self._room_of_users() if user and not container else None
            account = self._accounts[name] = Account(name, room)
        return account
