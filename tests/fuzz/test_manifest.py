"""A manifest that is whole and not what any agent has written: restored from, or refused by name and given back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable, Callable
from typing import Any

from changing_guest import ChangingGuest
from cluster import Cluster, Host
from complaints import unexpected_errors
from fuzzing import Fuzzer, changed_json
from moves import Move
from runtime_lines import RuntimeLines

from migrrdma_runtime.base import gids
from migrrdma_runtime.base.errors import ManifestError, RestoreError
from migrrdma_runtime.wire import manifest, manifest_schema

Play = Callable[[Callable[[Cluster], Awaitable[None]]], None]

_ANSWER_S = 20
"""For the end of a restore: longer than all of its deadlines."""

_PARKED = 4


class _Runtime(RuntimeLines):
    """What the OCI runtime says and hears, and a process that it has restored."""

    def __init__(self, host: Host, move: Move, rng: random.Random) -> None:
        super().__init__(host.config.runtime_socket)
        self._host = host
        self._move = move
        self._rng = rng

    async def restore(self, document: Any) -> Any:
        """The last line of the answer, which goes to whoever has reported last."""
        path = self._host.config.guest_socket
        fake = ChangingGuest(self._rng, path, self._move.mover.name, self._pairs(), changes=0.01)
        answer = await self.say({"op": "restore", "container": "c2", "manifest": document})
        try:
            if "ready" in answer:
                await fake.connect(_PARKED, changes=0)
                answer = await self.report(answer)
        finally:
            await fake.close()
        return answer

    def _pairs(self) -> list[dict[str, Any]]:
        """What the restored process has rebuilt."""
        return [
            {
                "context": 1,
                "vqpn": one["vqpn"],
                "pqpn": one["qpn"],
                "next_pqpn": one["qpn"] + 0x3000,
                "type": 2,
                "state": 3,
                "port": 1,
                "sgid_index": 1,
                "sgid": gids.packed(one["gid"]),
                "dgid": gids.packed(one["peer_gid"]),
            }
            for one in self._move.document["partners"][0]["connections"]
        ]


def test_no_manifest_is_more_than_refused(fuzzer: Fuzzer, play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.impatient_hosts(guest=0.5, peer=1, drain=0.5, ask=0.05, reconnect=0.5, doubt=0.5)
        move = await Move.begin(cluster)
        await move.checkpoint()
        move.dst.containers.members[os.getpid()] = "c2"
        fitting = connected = 0

        def stop_before_the_commit(step: str) -> None:
            nonlocal connected
            if step == "destination: commit":
                connected += 1
                raise RestoreError("as far as this test goes")

        move.dst.on_fault_point = stop_before_the_commit

        async def one(rng: random.Random) -> None:
            nonlocal fitting
            members = {
                name: value for name, value in move.document.items() if name not in ("version", "digest")
            }
            changed = changed_json(rng, members) if rng.random() < 0.9 else members
            document = manifest.seal(changed if isinstance(changed, dict) else {"migration": changed})
            with contextlib.suppress(ManifestError):
                manifest_schema.validate(document)
                fitting += 1
            runtime = _Runtime(move.dst, move, rng)
            async with asyncio.timeout(_ANSWER_S):
                answer = await runtime.restore(document)
            await runtime.close()
            assert "internal error" not in answer["error"]["message"], errors[0]
            assert errors == [], errors[0]

        with unexpected_errors() as errors:
            await fuzzer.arun(one)
        assert fitting > fuzzer.rounds / 20, "most did not fit the schema: nothing was shown"
        assert connected, "no restore came as far as its commit: nothing was shown"

    play(scenario)
