"""Two ends of which one posts no receives until it is told to by SIGUSR1: sends wait, and cannot be drained.

    deaf.py DEVICE GID_INDEX ADDRESS          the deaf one: waits for a sender, prints "deaf", in the end "heard N"
    deaf.py DEVICE GID_INDEX ADDRESS send     the sender: prints "sent", then "delivered N"

Uses pyverbs, so it runs in a container image that has it.
"""

from __future__ import annotations

import signal
import socket
import sys
import time

import pyverbs.enums as e
from pyverbs.addr import GID, AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR

_COUNT, _SIZE, _PORT = 8, 64, 18700


def _exchange(address: str, sends: bool, mine: str) -> str:
    if sends:
        other = socket.create_connection((address, _PORT))
    else:
        with socket.create_server((address, _PORT)) as listener:
            print("waiting", flush=True)
            other, _ = listener.accept()
    with other:
        other.sendall(f"{mine}\n".encode())
        return other.makefile().readline().strip()


def _connect(qp: QP, gid: str, gid_index: int, number: int) -> None:
    attr = QPAttr(port_num=1)
    attr.dest_qp_num = number
    attr.ah_attr = AHAttr(gr=GlobalRoute(dgid=GID(gid), sgid_index=gid_index), is_global=1, port_num=1)
    attr.path_mtu = e.IBV_MTU_1024
    attr.max_rd_atomic = attr.max_dest_rd_atomic = 1
    attr.rnr_retry = 7  # for ever
    attr.timeout, attr.retry_cnt, attr.min_rnr_timer = 14, 7, 12
    qp.to_rts(attr)


def main(device: str, gid_text: str, address: str, *sends: str) -> None:
    gid_index = int(gid_text)
    told: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: told.append(number))
    context = Context(name=device)
    pd = PD(context)
    cq = CQ(context, 2 * _COUNT)
    mr = MR(pd, _COUNT * _SIZE, e.IBV_ACCESS_LOCAL_WRITE)
    qp = QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=QPCap(_COUNT, _COUNT, 1, 1)))
    other = _exchange(address, bool(sends), f"{context.query_gid(1, gid_index)} {qp.qp_num}").split()
    _connect(qp, other[0], gid_index, int(other[1]))
    if sends:
        mr.write("x" * _COUNT * _SIZE, _COUNT * _SIZE)
        for number in range(_COUNT):
            piece = SGE(mr.buf + number * _SIZE, _SIZE, mr.lkey)
            wr = SendWR(wr_id=number, num_sge=1, sg=[piece])
            qp.post_send(wr)
        print("sent", flush=True)
    else:
        print("deaf", flush=True)
        while not told:
            time.sleep(0.1)  # deaf is what it is here to be, until the signal's handler has run
        for number in range(_COUNT):
            qp.post_recv(RecvWR(wr_id=number, num_sge=1, sg=[SGE(mr.buf + number * _SIZE, _SIZE, mr.lkey)]))
    done: list[int] = []
    while len(done) < _COUNT:
        _, found = cq.poll(_COUNT)
        bad = [wc.status for wc in found or () if wc.status != e.IBV_WC_SUCCESS]
        if bad:
            sys.exit(f"failed with status {bad[0]}")
        done += [wc.wr_id for wc in found or ()]
        time.sleep(0.05)  # the machine has one processor, and others need it
    if done != list(range(_COUNT)) or (not sends and mr.read(_COUNT * _SIZE, 0) != b"x" * _COUNT * _SIZE):
        sys.exit(f"wrong: {done}")
    print("delivered" if sends else "heard", len(done), flush=True)
    time.sleep(
        60
    )  # an end that went at once would take the QP from the other, which may not have heard all yet


if __name__ == "__main__":
    main(*sys.argv[1:])
