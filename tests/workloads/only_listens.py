"""A UD queue pair that takes datagrams and has never sent one: nobody knows who would have to be told of its move."""

from __future__ import annotations

import itertools
import sys
import time

import pyverbs.enums as e
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR


def main(device: str) -> None:
    context = Context(name=device)
    pd, cq = PD(context), CQ(context, 16)
    memory = MR(pd, 4096, e.IBV_ACCESS_LOCAL_WRITE)
    attr = QPAttr(port_num=1)
    attr.qkey = 1
    init = QPInitAttr(qp_type=e.IBV_QPT_UD, scq=cq, rcq=cq, cap=QPCap(8, 8, 1, 1))
    listening = QP(pd, init, attr)  # which brings it to RTS
    listening.post_recv(RecvWR(sg=[SGE(memory.buf, 4096, memory.lkey)], num_sge=1))
    for second in itertools.count():
        print(f"{second} s with QP {listening.qp_num}", flush=True)
        time.sleep(1)  # a line a second says that it goes on


if __name__ == "__main__":
    main(sys.argv[1])
