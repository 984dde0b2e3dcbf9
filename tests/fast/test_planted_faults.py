"""A device that is broken on purpose is caught by the workload on the fast rack: what it finds sound is sound.

The fault strikes in mid-traffic, in the device that all three hosts share, with containers, the runtime and the guest
library in between.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import pytest
import workload
from migrrdma_lab import rdma
from migrrdma_lab.containers import Container
from migrrdma_lab.namespaces.rack import FastRack
from migrrdma_lab.plan import PEER
from migrrdma_lab.shell import Shell

pytestmark = pytest.mark.usefixtures("on_the_nodes")

_CAUGHT = {
    "drop_completion": r"the completion of (operation|receive) \d+ .*is missing",
    "repeat_send": r"came again|duplicated|out of order|found a sum of|the (shared )?sum of all FETCH_ADDs is",
    "flip_byte": r"is corrupted|found a sum of|came with imm_data|the (shared )?sum of all FETCH_ADDs is",
    "lose_receive": r"the completion of receive \d+ .*is missing|message \d+ .*lost",
    "foreign_key": r"is there|is corrupted|out of order|found a sum of|changed byte",
}


@pytest.mark.parametrize("fault", _CAUGHT)
def test_a_planted_fault_is_caught_after_a_move(
    rack: FastRack,
    src: Shell,
    dst: Shell,
    peer: Shell,
    containers: Callable[[Container], Container],
    fault: str,
) -> None:
    # Two pairs, for one fault takes a key of another process.
    pairs = [workload.pair(src, peer, "-w", "20", number=number) for number in range(2)]
    for client, server in pairs:
        containers(server).run()
        containers(client).run()
        client.wait_for_line(workload.RATE)
    client, server = pairs[0]
    containers(client.on(dst))
    client = rdma.move(client, dst)
    client.wait_for_line(workload.RATE, after=len(client.lines()))
    found = _break(rack, fault, [server, client, *pairs[1]])
    assert re.search(_CAUGHT[fault], found), found


def _break(rack: FastRack, fault: str, ends: list[Container]) -> str:
    """What the first end says that fails; the others would run on.

    The fault is planted again while nobody has noticed one: a send that is repeated where no receive is posted is
    sent back, as between real devices.
    """
    with ThreadPoolExecutor(len(ends)) as pool:
        heard = [pool.submit(workload.verdict, end) for end in ends]
        try:
            for number in range(10):
                rack.devices.daemon.control.set(PEER.name, fault, 1000 + number)
                done, _ = wait(heard, timeout=5, return_when=FIRST_COMPLETED)
                if done:
                    return done.pop().result().text
            return "nobody has noticed anything"
        finally:
            for end in ends:
                end.docker("kill", end.name, check=False)
