"""pyverbs: one end writes into the other's memory over RC, reads it back and compares, until it is told to stop.

Usage: pyverbs_pair.py DEVICE GID_INDEX         the end that lends its memory, and answers a message for each round
       pyverbs_pair.py DEVICE GID_INDEX WHERE   the end that writes and reads
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time

from pyverbs.addr import GID, AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.enums import (
    IBV_ACCESS_LOCAL_WRITE,
    IBV_ACCESS_REMOTE_READ,
    IBV_ACCESS_REMOTE_WRITE,
    IBV_QPT_RC,
    IBV_SEND_SIGNALED,
    IBV_WC_SUCCESS,
    IBV_WR_RDMA_READ,
    IBV_WR_RDMA_WRITE,
    IBV_WR_SEND,
)
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR

SIZE = 1 << 16
PORT = 5556
stopped: list[int] = []


class End:
    """A queue pair and the memory that it may use: what is sent, what is read, and a place for messages."""

    def __init__(self, device: str, gid_index: int) -> None:
        self.context = Context(name=device)
        self.pd = PD(self.context)
        self.cq = CQ(self.context, 16)
        access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ
        self.mr = MR(self.pd, 3 * SIZE, access)
        cap = QPCap(max_send_wr=8, max_recv_wr=8, max_send_sge=1, max_recv_sge=1)
        self.qp = QP(self.pd, QPInitAttr(qp_type=IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=cap))
        self.gid_index = gid_index
        attr = QPAttr(port_num=1)
        attr.qp_access_flags = access
        self.qp.to_init(attr)

    def name(self) -> dict[str, object]:
        """What the other end has to know."""
        gid = self.context.query_gid(1, self.gid_index).gid
        return {"gid": gid, "qpn": self.qp.qp_num, "addr": self.mr.buf, "rkey": self.mr.rkey}

    def connect(self, other: dict[str, object]) -> None:
        route = GlobalRoute(dgid=GID(other["gid"]), sgid_index=self.gid_index)
        attr = QPAttr(port_num=1)
        attr.ah_attr = AHAttr(port_num=1, is_global=1, gr=route)
        attr.dest_qp_num = other["qpn"]
        attr.path_mtu, attr.max_dest_rd_atomic, attr.max_rd_atomic = 3, 1, 1
        attr.min_rnr_timer, attr.timeout, attr.retry_cnt, attr.rnr_retry = 12, 14, 7, 7
        self.receive()
        self.qp.to_rts(attr)

    def receive(self) -> None:
        self.qp.post_recv(RecvWR(num_sge=1, sg=[SGE(self.mr.buf + 2 * SIZE, 64, self.mr.lkey)]))

    def post(self, opcode: int, offset: int, length: int, other: dict[str, int] | None = None) -> None:
        request = SendWR(
            num_sge=1, sg=[SGE(self.mr.buf + offset, length, self.mr.lkey)], opcode=opcode,
            send_flags=IBV_SEND_SIGNALED,
        )  # fmt: skip
        if other:
            request.set_wr_rdma(other["rkey"], other["addr"])
        self.qp.post_send(request)

    def complete(self, count: int) -> bool:
        """Wait for so many completions; False: to be stopped."""
        while count and not stopped:
            got, found = self.cq.poll(count)
            for one in found:
                if one.status != IBV_WC_SUCCESS:
                    sys.exit(f"a completion has status {one.status}")
            count -= got
        return not count


def lend(end: End) -> None:
    with socket.create_server(("", PORT)) as listener:
        print("lends", flush=True)
        connection, _ = listener.accept()
    with connection, connection.makefile("rw") as words:
        print(json.dumps(end.name()), file=words, flush=True)
        end.connect(json.loads(words.readline()))
        print("ready", file=words, flush=True)
    while end.complete(1):  # a message came: another place for one, and an answer
        end.receive()
        end.post(IBV_WR_SEND, 0, 64)
        end.complete(1)


def write_and_read(end: End, where: str) -> int:
    with socket.create_connection((where, PORT)) as connection, connection.makefile("rw") as words:
        other = json.loads(words.readline())
        print(json.dumps(end.name()), file=words, flush=True)
        end.connect(other)
        words.readline()
    rounds, said = 0, time.monotonic()
    while not stopped:
        pattern = bytes((rounds + i) & 0xFF for i in range(256)) * (SIZE // 256)
        end.mr.write(pattern, SIZE)
        end.post(IBV_WR_RDMA_WRITE, 0, SIZE, other)
        if not end.complete(1):
            break
        end.post(IBV_WR_RDMA_READ, SIZE, SIZE, other)
        if not end.complete(1):
            break
        if end.mr.read(SIZE, SIZE) != pattern:
            print(f"round {rounds} is not what was written", flush=True)
            return 1
        end.post(IBV_WR_SEND, 0, 64)
        if not end.complete(2):  # it, and the answer
            break
        end.receive()
        rounds += 1
        if time.monotonic() - said >= 1:
            said = time.monotonic()
            print(f"{rounds} rounds", flush=True)
    print(f"ok, {rounds} rounds", flush=True)
    return 0


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    end = End(sys.argv[1], int(sys.argv[2]))
    if len(sys.argv) == 3:
        lend(end)
        return 0
    return write_and_read(end, sys.argv[3])


if __name__ == "__main__":
    sys.exit(main())
