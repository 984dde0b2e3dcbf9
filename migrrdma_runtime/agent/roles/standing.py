"""What is restored and has not made a step yet: CRIU's plugin holds it until it is decided whether it may.

The plugin says so on a line of its own, and hears on it in the end that the restore is committed, or that the claim
was given back. Before the commit is asked for it is told: until it has heard that, it knows that nothing was committed.
"""

from __future__ import annotations

import asyncio

from migrrdma_runtime.agent.local.runtime_api import Runtime


class Standing:
    """The processes of one restore, and the decision that whoever holds them waits for."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        """Somebody holds them: all are restored."""
        self._decision: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._holders: list[Runtime] = []
        self._is_committing = False

    async def decision(self, holder: Runtime) -> None:
        """Wait until they may go on; raise the reason, durably written, if they never may."""
        self._holders.append(holder)
        if self._is_committing:
            holder.say("committing")
        self.arrived.set()
        refusal = await asyncio.shield(self._decision)
        if refusal is not None:
            holder.released = True
            raise refusal

    def committing(self) -> None:
        """Say that from here on it may be committed; the holders have heard it when this returns, if they can."""
        self._is_committing = True
        for holder in self._holders:
            holder.say("committing")

    def release(self) -> None:
        """Let them go on: it is committed."""
        self._decide(None)

    def refuse(self, reason: Exception) -> None:
        """Have them killed: the claim was given back."""
        self._decide(reason)

    def _decide(self, refusal: Exception | None) -> None:
        if not self._decision.done():
            self._decision.set_result(refusal)
