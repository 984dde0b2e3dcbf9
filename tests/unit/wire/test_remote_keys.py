"""Remote keys on their way between agents: what a message of them takes is known before the dump."""

from __future__ import annotations

import pytest

from migrrdma_runtime.wire import agent_messages, remote_keys


@pytest.mark.parametrize("counts", [[0], [1], [2, 3], [1, 1, 1, 4, 5], [1000, 0, 7], [1] * 300])
def test_no_maps_take_more_of_a_message_than_was_said(counts: list[int]) -> None:
    maps = {
        remote_keys.map_name("a" * 16, 1, pd): remote_keys.pack([(key, key + 1) for key in range(count)])
        for pd, count in enumerate(counts)
    }
    assert len(maps) == len(counts)
    takes = len(agent_messages.encode({"keys": maps})) - len(agent_messages.encode({"keys": {}}))
    assert takes <= remote_keys.packed_size(sum(counts), len(counts)) <= takes + 6 * len(counts)


def test_keys_arrive_as_they_were_sent() -> None:
    pairs = [(0, 0), (1, 0xFFFFFFFF), (0x80000000, 2)]
    assert remote_keys.unpack({"a": remote_keys.pack(pairs), "b": ""}) == {"a": pairs, "b": []}
