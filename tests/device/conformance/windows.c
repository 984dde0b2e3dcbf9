/* Memory windows, and XRC where there is any. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "conformance.h"

static int write_through(struct bench *bench, struct ibv_qp *qp, uint32_t rkey, uint32_t remote, uint32_t length)
{
	struct ibv_sge one = sge(bench, 0, length);
	struct ibv_send_wr wr = { .sg_list = &one, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED,
				  .wr.rdma = { (uintptr_t)bench->memory + remote, rkey } };

	return post_wr(qp, &wr);
}

static int bind2(struct bench *bench, struct ibv_qp *qp, struct ibv_mw *mw, uint32_t rkey, uint32_t offset, uint64_t length)
{
	struct ibv_send_wr wr = { .opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED,
				  .bind_mw = { mw, rkey, { bench->mr, (uintptr_t)bench->memory + offset, length,
							   IBV_ACCESS_REMOTE_WRITE } } };

	return post_wr(qp, &wr);
}

CASE(a_window_of_type_2_opens_until_it_is_invalidated)
{
	struct pair pair = pair_new(bench, usual());
	struct ibv_mw *mw = ibv_alloc_mw(bench->pd, IBV_MW_TYPE_2);
	struct ibv_sge one = sge(bench, 0, 8);
	struct ibv_send_wr wr = { .sg_list = &one, .num_sge = 1, .opcode = IBV_WR_SEND_WITH_INV, .send_flags = IBV_SEND_SIGNALED };

	must(mw, "a window");
	uint32_t rkey = ibv_inc_rkey(mw->rkey);
	say_error("bind", bind2(bench, pair.other, mw, rkey, 8192, 100));
	say_next(bench, bench->send_cq, "bound");
	say_error("region", ibv_dereg_mr(bench->mr));
	must(!write_through(bench, pair.one, rkey, 8192, 100), "a write");
	say_next(bench, bench->send_cq, "inside");
	wr.invalidate_rkey = rkey;
	must(!receive(bench, pair.other, 4096, 100), "a receive");
	must(!post_wr(pair.one, &wr), "a send with invalidate");
	say_next(bench, bench->send_cq, "send");
	say_next(bench, bench->recv_cq, "receive");
	must(!write_through(bench, pair.one, rkey, 8192, 8), "a write");
	say_next(bench, bench->send_cq, "afterwards");
	must(!ibv_dealloc_mw(mw), "ending the window");
	pair_end(&pair);
}

CASE(a_window_ends_where_it_was_bound_to_end)
{
	struct pair pair = pair_new(bench, usual());
	struct ibv_mw *mw = ibv_alloc_mw(bench->pd, IBV_MW_TYPE_2);

	must(mw, "a window");
	uint32_t rkey = ibv_inc_rkey(mw->rkey);
	must(!bind2(bench, pair.other, mw, rkey, 8192, 100), "binding");
	say_next(bench, bench->send_cq, "bound");
	must(!write_through(bench, pair.one, rkey, 8193, 100), "a write");
	say_next(bench, bench->send_cq, "beyond");
	must(!ibv_dealloc_mw(mw), "ending the window");
	pair_end(&pair);
}

CASE(a_window_beyond_its_region_is_not_bound)
{
	struct pair pair = pair_new(bench, usual());
	struct ibv_mw *mw = ibv_alloc_mw(bench->pd, IBV_MW_TYPE_2);

	must(mw, "a window");
	must(!bind2(bench, pair.other, mw, ibv_inc_rkey(mw->rkey), 8192, MEMORY), "binding");
	say_next(bench, bench->send_cq, "bound");
	say_state("state", pair.other);
	must(!ibv_dealloc_mw(mw), "ending the window");
	pair_end(&pair);
}

CASE(a_window_of_type_1_is_bound_by_a_call)
{
	struct pair pair = pair_new(bench, usual());
	struct ibv_mw *mw = ibv_alloc_mw(bench->pd, IBV_MW_TYPE_1);
	struct ibv_mw_bind bind = { .send_flags = IBV_SEND_SIGNALED,
				    .bind_info = { bench->mr, (uintptr_t)bench->memory + 8192, 100, IBV_ACCESS_REMOTE_WRITE } };

	must(mw, "a window");
	uint32_t before = mw->rkey;
	say_error("bind", ibv_bind_mw(pair.other, mw, &bind));
	say_next(bench, bench->send_cq, "bound");
	say("key=%s", mw->rkey == before ? "same" : "new");
	must(!write_through(bench, pair.one, mw->rkey, 8192, 100), "a write");
	say_next(bench, bench->send_cq, "inside");
	must(!ibv_dealloc_mw(mw), "ending the window");
	pair_end(&pair);
}

CASE(xrc)
{
	struct ibv_xrcd_init_attr attr = { .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = -1, .oflags = O_CREAT };
	struct ibv_xrcd *xrcd = ibv_open_xrcd(bench->context, &attr);
	struct options options = usual();

	if (!xrcd) {
		say_error("domain", errno);
		return;
	}
	struct ibv_srq_init_attr_ex srq_attr = { .attr = { .max_wr = 8, .max_sge = 1 },
						 .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_XRCD |
							      IBV_SRQ_INIT_ATTR_CQ | IBV_SRQ_INIT_ATTR_PD,
						 .srq_type = IBV_SRQT_XRC, .pd = bench->pd, .xrcd = xrcd, .cq = bench->recv_cq };
	struct ibv_srq *srq = ibv_create_srq_ex(bench->context, &srq_attr);
	struct ibv_qp_init_attr_ex target_attr = { .qp_type = IBV_QPT_XRC_RECV, .comp_mask = IBV_QP_INIT_ATTR_XRCD, .xrcd = xrcd };
	struct ibv_qp_init_attr_ex initiator_attr = { .qp_type = IBV_QPT_XRC_SEND, .send_cq = bench->send_cq,
						      .comp_mask = IBV_QP_INIT_ATTR_PD, .pd = bench->pd,
						      .cap = { .max_send_wr = 8, .max_send_sge = 1 } };
	struct ibv_qp *target = ibv_create_qp_ex(bench->context, &target_attr);
	struct ibv_qp *initiator = ibv_create_qp_ex(bench->context, &initiator_attr);
	struct ibv_sge one = sge(bench, 0, 8), into = sge(bench, 4096, 100);
	struct ibv_send_wr wr = { .sg_list = &one, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED };
	struct ibv_recv_wr receive_wr = { .sg_list = &into, .num_sge = 1 }, *bad;
	uint32_t srqn;

	must(srq && target && initiator && !ibv_get_srq_num(srq, &srqn), "XRC's objects");
	options.type = IBV_QPT_XRC_SEND;
	must(!to_init(initiator, options) && !to_init(target, options), "INIT");
	must(!to_rtr(bench, initiator, target->qp_num) && !to_rtr(bench, target, initiator->qp_num), "RTR");
	must(!to_rts(initiator, options), "RTS");
	must(!ibv_post_srq_recv(srq, &receive_wr, &bad), "a receive");
	wr.qp_type.xrc.remote_srqn = srqn;
	say_error("post", post_wr(initiator, &wr));
	say_next(bench, bench->send_cq, "send");
	say_next(bench, bench->recv_cq, "receive");
	must(!ibv_destroy_qp(initiator) && !ibv_destroy_qp(target) && !ibv_destroy_srq(srq) && !ibv_close_xrcd(xrcd), "ending XRC");
}
