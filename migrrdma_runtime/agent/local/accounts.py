"""Whose account it goes to what processes cost their agent: their container's, or, outside of containers, their user's.

Processes outside of containers have nothing in common but the socket that they come in by. Were they one account, any
user of the host could take all of it.
"""

from __future__ import annotations

import asyncio
import logging
from weakref import WeakValueDictionary

from migrrdma_runtime.agent.local.budget import Budget
from migrrdma_runtime.agent.local.owners import owner, whose
from migrrdma_runtime.base.allowed_rate import Bucket, Rate

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 1024
"""Of one account, greeted or not: none can keep the others from their agent."""

BURST, PER_SECOND = 1024, 50
"""New connections of one account: so many at once, as after an agent's restart, and then so many in a second."""

_KEPT_S = 60.0
"""A user's account after its last connection: by then all has come back that it had taken."""


class Account:
    """What one container, or one user outside of containers, has taken."""

    def __init__(self, name: str) -> None:
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
            if self._open < MAX_CONNECTIONS:
                self._open += 1
                self._is_refused = False
                return True
            reason = f"has {MAX_CONNECTIONS} connections already"
        if not self._is_refused:  # once: it may try as often as it can
            _log.warning("%s %s", self, reason)
        self._is_refused = True
        return False

    def ended(self) -> None:
        """A connection that was admitted is closed."""
        self._open -= 1
        if not self._open:
            # Who connects and leaves again and again begins no new account: the timer keeps this one.
            asyncio.get_running_loop().call_later(_KEPT_S, self.rest)


class Accounts:
    """Those of all who have anything open, or have had until just now."""

    def __init__(self) -> None:
        self._accounts: WeakValueDictionary[str, Account] = WeakValueDictionary()

    def of(self, container: str, user: int) -> Account:
        """The container's; that of the user if it is none."""
        name = owner(container, user)
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account(name)
        return account
