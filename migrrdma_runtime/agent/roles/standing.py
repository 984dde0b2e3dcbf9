"""What is restored and has not made a step yet: CRIU's plugin holds it until it is decided whether it may.

The plugin says so on a line of its own, and hears on it in the end that the restore is committed, or that the claim
was given back. Before the commit is asked for it is told: until it has heard that, it knows that nothing was committed.
It says when it lets them go. If CRIU ends before that, the kernel ends them too: nothing of them has run, and even what
is committed can be given back.
"""

from __future__ import annotations

import asyncio

from migrrdma_runtime.agent.local.runtime_api import Runtime, Verdict
from migrrdma_runtime.base.errors import RestoreError


class Standing:
    """The processes of one restore, and the decision that whoever holds them waits for."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        """Somebody holds them: all are restored."""
        self._gone_on = asyncio.Event()
        self._decided = asyncio.Event()
        self._refusal: Exception | None = None
        self._holders: list[Runtime] = []
        self._is_committing = False

    @property
    def is_held(self) -> bool:
        """Whether they have been restored and not one of them runs."""
        return self.arrived.is_set() and not self._gone_on.is_set()

    async def decision(self, holder: Runtime) -> None:
        """Wait until they may go on; raise the reason, durably written, if they never may."""
        self._holders.append(holder)
        if self._is_committing:
            holder.say("committing")
        self.arrived.set()
        await self._decided.wait()
        if self._refusal is not None:
            holder.released = True
            raise self._refusal

    def committing(self) -> None:
        """Say that from here on it may be committed; the holders have heard it when this returns, if they can."""
        self._is_committing = True
        for holder in self._holders:
            holder.say("committing")

    def gone_on(self) -> None:
        """Their holder has let them go, or is about to and will not end them any more."""
        self._gone_on.set()

    async def release(self, report: asyncio.Future[Verdict]) -> None:
        """Let them go on, since it is committed; `RestoreError`: CRIU has ended before it did, and they with it.

        ``report``: the runtime's, which waits for CRIU. A plugin of before this does not say that it lets them go: then
        that report does. A runtime that has ended knows nothing of CRIU, which goes on without it.
        """
        self._decided.set()
        if not self.is_held:
            return
        gone_on = asyncio.ensure_future(self._gone_on.wait())
        await asyncio.wait((gone_on, report), return_when=asyncio.FIRST_COMPLETED)
        gone_on.cancel()
        if self.is_held:
            verdict = report.result()
            if not verdict.succeeded and not verdict.died:
                self._refusal = RestoreError(
                    "CRIU ended before it let the processes go: nothing of them has run, and the checkpoint can be "
                    "restored again"
                )
                raise self._refusal
            self._gone_on.set()

    def refuse(self, reason: Exception) -> None:
        """Have them killed: the claim was given back, or is about to be."""
        self._refusal = reason
        self._decided.set()
