"""Verbs by way of pyverbs: objects made, used and queried; prints what came back. Run in a container."""

from __future__ import annotations

import sys

import pyverbs.enums as e
from pyverbs.addr import AH, AHAttr, GlobalRoute
from pyverbs.cq import CQ, CompChannel
from pyverbs.device import Context, get_device_list
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.pyverbs_error import PyverbsError
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR

_SIZE = 4096


def main(device: str) -> None:
    print(sorted(one.name.decode() for one in get_device_list()))
    context = Context(name=device)
    limits = context.query_device()
    print(limits.max_qp > 0, limits.max_sge > 0, context.query_port(1).state)
    gids = [str(context.query_gid(1, index)) for index in range(2)]
    print(len(gids[0]), gids[0] != gids[1])
    pd = PD(context)
    channel = CompChannel(context)
    cq = CQ(context, 16, None, channel, 0)
    mr = MR(pd, _SIZE, e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ)
    qps = [QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=QPCap(8, 8, 1, 1))) for _ in range(2)]
    for qp, other in (qps, qps[::-1]):
        route = GlobalRoute(dgid=context.query_gid(1, 1), sgid_index=1)
        attr = QPAttr(qp_state=e.IBV_QPS_INIT, port_num=1)
        attr.dest_qp_num = other.qp_num
        attr.ah_attr = AHAttr(gr=route, is_global=1, port_num=1)
        attr.path_mtu = e.IBV_MTU_1024
        attr.max_rd_atomic = attr.max_dest_rd_atomic = 1
        attr.qp_access_flags = e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ
        attr.timeout, attr.retry_cnt, attr.rnr_retry, attr.min_rnr_timer = 14, 7, 7, 12
        qp.to_rts(attr)
        found, made = qp.query(e.IBV_QP_STATE | e.IBV_QP_DEST_QPN)
        print(found.qp_state, found.dest_qp_num == other.qp_num, made.cap.max_send_wr >= 8)
    mr.write("x" * 64, 64)
    cq.req_notify()
    qps[1].post_recv(RecvWR(wr_id=7, num_sge=1, sg=[SGE(mr.buf + 1024, 64, mr.lkey)]))
    qps[0].post_send(SendWR(wr_id=8, num_sge=1, sg=[SGE(mr.buf, 64, mr.lkey)]))
    channel.get_cq_event(cq)
    cq.ack_events(1)
    done: list[tuple[int, int, int, bool]] = []
    while len(done) < 2:
        _, found = cq.poll(2)
        done += [
            (wc.wr_id, wc.status, wc.opcode, wc.qp_num in (qps[0].qp_num, qps[1].qp_num)) for wc in found
        ]
    print(sorted(done), mr.read(64, 1024) == b"x" * 64)
    route = GlobalRoute(dgid=context.query_gid(1, 1), sgid_index=1)
    print("address handle", AH(pd, attr=AHAttr(gr=route, is_global=1, port_num=1)) is not None)
    try:
        CQ(context, 1 << 30)
    except PyverbsError as error:
        print("refused", str(error).rpartition(".")[0][:40])
    for one in (*qps, mr, cq, channel, pd, context):
        one.close()


if __name__ == "__main__":
    main(sys.argv[1])
