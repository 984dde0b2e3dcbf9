"""The agents of many partners at once, as the network shows them: each answers when it has to, one never does."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable

from migrrdma_runtime.agent.peers.transport import Transport
from migrrdma_runtime.base.errors import UnreachableError
from migrrdma_runtime.wire import agent_messages
from migrrdma_runtime.wire.agent_messages import Message

_PATIENT_S = 120


class ManyPartners:
    """Answers for some addresses, and has the rest answered by the real transport.

    Nobody is answered before all have been asked the same: whoever asks them one after the other waits in vain.
    """

    def __init__(self, real: Transport, addresses: list[str]) -> None:
        self._real = real
        self._addresses = addresses
        self._all_asked: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.asked: Counter[str] = Counter()
        """How many were asked what."""
        self.answered: Counter[str] = Counter()
        self.silent: dict[str, str] = {}
        """Who is not there any more, by the request that it does not answer."""
        self.waited_for: list[str] = []
        """What such a one was asked and waited for until the deadline."""

    async def ask(
        self, address: str, name: str, request: Message, timeout: float, agent: str = ""
    ) -> Message:
        """Ask one of these, or one that is real."""
        if address not in self._addresses:
            return await self._real.ask(address, name, request, timeout, agent)
        self.asked[name] += 1
        if self.asked[name] == len(self._addresses):
            self._all_asked[name].set()
        if self.silent.get(name) == address:
            await asyncio.sleep(timeout)  # its deadline is the subject
            self.waited_for.append(name)
            raise UnreachableError(f"{address} did not answer {name} within {timeout:g} s")
        async with asyncio.timeout(_PATIENT_S):
            await self._all_asked[name].wait()
        self.answered[name] += 1
        answer: Callable[[str, Message], Message] = getattr(
            self, f"_on_{name}", lambda _address, _request: {}
        )
        return answer(address, request)

    async def close(self) -> None:
        """Close the real one."""
        await self._real.close()

    @staticmethod
    def _on_hello(address: str, _request: Message) -> Message:
        return {"name": address.partition(":")[0].replace(".", "-"), "version": agent_messages.VERSION}

    @staticmethod
    def _on_suspend(address: str, _request: Message) -> Message:
        return {"processes": [_process_at(address)]}

    @staticmethod
    def _on_parked(_address: str, _request: Message) -> Message:
        return {"generation": 0, "arbiter": {"name": "src", "address": "127.0.0.2:1"}}

    @staticmethod
    def _on_confirm(_address: str, _request: Message) -> Message:
        return {"state": "suspended"}

    @staticmethod
    def _on_prepare(address: str, request: Message) -> Message:
        made = [
            {
                "gid": one["gid"],
                "qpn": one["qpn"],
                "new_gid": one["gid"],
                "new_qpn": one["qpn"],
                "process": _process_at(address),
            }
            for one in request["connections"]
        ]
        return {"connections": made, "lost": []}

    @staticmethod
    def _on_switch(_address: str, _request: Message) -> Message:
        return {"blackout": 0.1}


def _process_at(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()[:16]
