"""A UD queue pair whose sends are posted by ibv_wr_*, which cannot be moved yet: makes one, says so, and goes on."""

from __future__ import annotations

import itertools
import sys
import time

import pyverbs.enums as e
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.pd import PD
from pyverbs.qp import QPCap, QPEx, QPInitAttrEx


def main(device: str) -> None:
    context = Context(name=device)
    pd, cq = PD(context), CQ(context, 16)
    attr = QPInitAttrEx(
        qp_type=e.IBV_QPT_UD,
        scq=cq,
        rcq=cq,
        pd=pd,
        cap=QPCap(8, 8, 1, 1),
        comp_mask=e.IBV_QP_INIT_ATTR_PD | e.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        send_ops_flags=e.IBV_QP_EX_WITH_SEND,
    )
    made = QPEx(context, attr)
    for second in itertools.count():
        print(f"{second} s with QP {made.qp_num}", flush=True)
        time.sleep(1)  # a line a second says that it goes on


if __name__ == "__main__":
    main(sys.argv[1])
