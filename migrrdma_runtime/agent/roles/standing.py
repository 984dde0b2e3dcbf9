"""What is restored and has not made a step yet: CRIU's plugin holds it until it is decided whether it may.

The plugin says so on a line of its own, and hears on it in the end that the restore is committed, or that the claim
was given back. Before the commit is asked for it is told: until it has heard that, it knows that nothing was committed.
Then it asks whether it may let them go, and says, when CRIU's restore has ended, whether they go on: CRIU ends them all
if it finds one that has died meanwhile.

Until the second yes the kernel ends them if CRIU does: nothing of them has run, and even what is committed can be
given back. After it they go on if CRIU dies. So only what the plugin says, and the end of its process, tell what has
become of them; that the runtime or the low-level runtime has failed, or was killed, says nothing of CRIU.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from migrrdma_runtime.agent.local.runtime_api import Runtime, Verdict
from migrrdma_runtime.base.errors import AgentError, RestoreError


class Standing:
    """The processes of one restore, and the decision that whoever holds them waits for."""

    def __init__(self, holder: Runtime | None = None, *, let_go: bool = False) -> None:
        """``holder``: who has held them when the last agent ended; ``let_go``: that one had said the last yes."""
        self.arrived = asyncio.Event()
        """Somebody holds them: all are restored."""
        self._let_go = asyncio.Event()
        self._gone_on: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._decided = asyncio.Event()
        self._refusal: Exception | None = None
        self._holders: list[Runtime] = []
        self._is_committing = False
        self._is_withdrawn = False
        if holder is not None:
            self._holders.append(holder)
            self._is_committing = True
            self.arrived.set()
        if let_go:
            self._let_go.set()

    @property
    def is_held(self) -> bool:
        """Whether they have been restored and not one of them is known to run."""
        return self.arrived.is_set() and not self._gone_on.done()

    async def decision(self, holder: Runtime) -> None:
        """Wait until they may go on; raise the reason, durably written, if they never may."""
        self._holders.append(holder)
        if self._is_committing:
            holder.say("committing")
        self.arrived.set()
        await self._decided.wait()
        self._require_no_refusal(holder)

    def committing(self) -> None:
        """Say that from here on it may be committed; the holders have heard it when this returns, if they can."""
        self._is_committing = True
        for holder in self._holders:
            holder.say("committing")

    def let_go(self, holder: Runtime) -> None:
        """Take note that their holder lets them go once it hears of this; raise the reason if it must not."""
        self._require_no_refusal(holder)
        if self._is_withdrawn or not self._decided.is_set():
            raise AgentError("what was committed is being given back: what was restored must not run")
        self._holders.append(holder)
        self._let_go.set()

    def gone_on(self, succeeded: bool) -> None:
        """Take their holder's last word."""
        if not self._gone_on.done():
            self._gone_on.set_result(succeeded)

    async def release(
        self, report: asyncio.Future[Verdict], goes_on: Callable[[], bool], patience: float
    ) -> None:
        """Let them go on, since it is committed; `RestoreError`: they have ended before they ran, or never will.

        ``report``: the runtime's, which waits for CRIU. Its success is CRIU's; without it nothing is let go that it
        would have to look after. ``goes_on``: whether they run, of which CRIU's end says nothing once they are let go.
        ``patience``: the seconds that CRIU has for letting them go; one that is stopped, or frozen with its
        container, may not do so any more after them.
        """
        try:
            await self._release(report, goes_on, patience)
        except RestoreError:
            self._is_withdrawn = True
            raise

    async def _release(
        self, report: asyncio.Future[Verdict], goes_on: Callable[[], bool], patience: float
    ) -> None:
        if report.done() and not self._let_go.is_set():
            require_success(report.result())
        self._decided.set()
        if not self.is_held:
            return
        let_go = asyncio.ensure_future(self._let_go.wait())
        end = asyncio.ensure_future(self._end_of_holder())
        try:
            over, _ = await asyncio.wait(
                (report, let_go, end, self._gone_on), timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
            if not self._let_go.is_set() and not self._gone_on.done():
                if report.done() and report.result().succeeded:
                    self.gone_on(succeeded=True)  # a plugin of before this asks for nothing
                    return
                if not over:
                    raise RestoreError(_stands_still(self._holders[-1].process.pid, patience))
                raise RestoreError(
                    "CRIU or the runtime ended before the processes were let go: nothing of them has run, and the "
                    "checkpoint can be restored again"
                )
            await asyncio.wait((end, self._gone_on), return_when=asyncio.FIRST_COMPLETED)
            if not self._gone_on.done():
                self.gone_on(goes_on())
            if not self._gone_on.result():
                raise RestoreError(
                    "one of the processes has died while they were let go, and CRIU has ended the others: the "
                    "checkpoint can be restored again"
                )
        finally:
            let_go.cancel()
            end.cancel()

    def refuse(self, reason: Exception) -> None:
        """Have them killed: the claim was given back, or is about to be."""
        self._refusal = reason
        self._decided.set()

    def _require_no_refusal(self, holder: Runtime) -> None:
        if self._refusal is not None:
            holder.released = True
            raise self._refusal

    async def _end_of_holder(self) -> None:
        """Wait for the end of the process that has asked last, and for all that it has said."""
        while True:
            holder = self._holders[-1]
            await holder.end()
            if holder is self._holders[-1]:
                return


def _stands_still(pid: int, seconds: float) -> str:
    return (
        f"process {pid} (CRIU) has not let go in {seconds:g} s what it holds, and was told to: it is stopped, or "
        "frozen with the container. Nothing of the application has run, and the checkpoint can be restored again; what "
        f"is held is ended when CRIU goes on, or by `kill -KILL {pid}`"
    )


def require_success(verdict: Verdict) -> None:
    """Raise `RestoreError` if the runtime could not restore, or has ended without saying so."""
    if verdict.died:
        raise RestoreError("the runtime ended while it restored the container")
    if not verdict.succeeded:
        raise RestoreError("the container could not be restored")
