/* The states of queue pairs. */
#include <stdio.h>

#include "conformance.h"

CASE(changes_of_state_without_what_they_need)
{
	struct options options = usual();
	struct ibv_qp *qp = qp_new(bench, options);
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1 };
	const int init = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;

	say_error("INIT without port", ibv_modify_qp(qp, &attr, init & ~IBV_QP_PORT));
	say_error("INIT with Q_Key", ibv_modify_qp(qp, &attr, init | IBV_QP_QKEY));
	attr.port_num = 9;
	say_error("INIT on port 9", ibv_modify_qp(qp, &attr, init));
	attr.port_num = 1;
	say_error("RESET to RTR", to_rtr(bench, qp, 1));
	say_error("RESET to RTS", to_rts(qp, options));
	say_error("INIT", ibv_modify_qp(qp, &attr, init));
	say_error("INIT again", ibv_modify_qp(qp, &attr, init));
	say_error("INIT to RTS", to_rts(qp, options));
	say_error("RTR with nothing", to(qp, IBV_QPS_RTR));
	say_error("RTR", to_rtr(bench, qp, qp->qp_num));
	say_error("RTR to RTR", to_rtr(bench, qp, qp->qp_num));
	say_error("RTR to INIT", ibv_modify_qp(qp, &attr, init));
	say_error("RTS", to_rts(qp, options));
	say_error("RTS to RTS", to(qp, IBV_QPS_RTS));
	say_error("ERR", to(qp, IBV_QPS_ERR));
	say_error("ERR to RTS", to(qp, IBV_QPS_RTS));
	say_error("ERR to INIT", ibv_modify_qp(qp, &attr, init));
	say_error("ERR to RESET", to(qp, IBV_QPS_RESET));
	say_state("state", qp);
	must(!ibv_destroy_qp(qp), "ending the queue pair");
}

CASE(ud_changes_of_state)
{
	struct options options = usual();
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1 };

	options.type = IBV_QPT_UD;
	struct ibv_qp *qp = qp_new(bench, options);
	say_error("INIT with rights", ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
	say_error("INIT", to_init(qp, options));
	say_error("RTR", to_rtr(bench, qp, 0));
	say_error("RTS without PSN", to(qp, IBV_QPS_RTS));
	say_error("RTS", to_rts(qp, options));
	must(!ibv_destroy_qp(qp), "ending the queue pair");
}

CASE(values_out_of_range)
{
	struct options options = usual();
	struct ibv_qp *qp = qp_new(bench, options);
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = 5, .max_dest_rd_atomic = 255,
				    .ah_attr = { .is_global = 1, .port_num = 1,
						 .grh = { .dgid = bench->gid, .sgid_index = (uint8_t)bench->gid_index } } };
	const int rtr = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
			IBV_QP_MIN_RNR_TIMER;

	must(!to_init(qp, options), "INIT");
	say_error("too many reads", ibv_modify_qp(qp, &attr, rtr));
	attr.max_dest_rd_atomic = 4;
	attr.ah_attr.port_num = 9;
	say_error("path on port 9", ibv_modify_qp(qp, &attr, rtr));
	attr.ah_attr.port_num = 1;
	attr.path_mtu = (enum ibv_mtu)9;
	say_error("MTU 9", ibv_modify_qp(qp, &attr, rtr));
	attr.path_mtu = IBV_MTU_1024;
	say_error("good", ibv_modify_qp(qp, &attr, rtr));
	must(!ibv_destroy_qp(qp), "ending the queue pair");
}

CASE(posting_outside_of_service)
{
	struct options options = usual();
	struct ibv_qp *qp = qp_new(bench, options);

	say_error("receive in RESET", receive(bench, qp, 0, 8));
	must(!to_init(qp, options), "INIT");
	say_error("receive in INIT", receive(bench, qp, 0, 8));
	say_error("send in INIT", post(bench, qp, IBV_WR_SEND, 0, 8, 0));
	must(!ibv_destroy_qp(qp), "ending the queue pair");
}

CASE(error_flushes_both_queues_and_what_comes_later)
{
	struct pair pair = pair_new(bench, usual());

	must(!receive(bench, pair.one, 0, 8) && !receive(bench, pair.one, 0, 8), "receives");
	must(!post(bench, pair.one, IBV_WR_SEND, 0, 8, 0), "a send for which there is no receive");
	must(!to(pair.one, IBV_QPS_ERR), "ERR");
	say_next(bench, bench->send_cq, "send");
	say_next(bench, bench->recv_cq, "receive");
	say_next(bench, bench->recv_cq, "receive");
	say_error("send in ERR", post(bench, pair.one, IBV_WR_SEND, 0, 8, 0));
	say_next(bench, bench->send_cq, "send");
	say_error("receive in ERR", receive(bench, pair.one, 0, 8));
	say_next(bench, bench->recv_cq, "receive");
	pair_end(&pair);
}

CASE(reset_forgets_requests_and_leaves_completions)
{
	struct options options = usual();
	struct pair pair = pair_new(bench, options);

	must(!receive(bench, pair.other, 4096, 8), "a receive");
	must(!ibv_req_notify_cq(bench->send_cq, 0), "arming");
	must(!post(bench, pair.one, IBV_WR_SEND, 0, 8, 0), "a send");
	struct ibv_wc wc;
	must(next(bench->recv_cq, &wc), "its arrival");
	/* It arrives before the acknowledgement does: a sender that is reset in between forgets it. */
	must(told(bench, 3000), "its completion");
	must(!receive(bench, pair.one, 0, 8), "a receive that is forgotten");
	must(!to(pair.one, IBV_QPS_RESET) && !to(pair.other, IBV_QPS_RESET), "RESET");
	say_next(bench, bench->send_cq, "before");
	say("forgotten=%s", quiet(bench->recv_cq) ? "silently" : "told");
	must(!to_init(pair.one, options) && !to_init(pair.other, options), "INIT");
	must(!to_rtr(bench, pair.one, pair.other->qp_num) && !to_rtr(bench, pair.other, pair.one->qp_num), "RTR");
	must(!to_rts(pair.one, options) && !to_rts(pair.other, options), "RTS");
	must(!receive(bench, pair.other, 4096, 8), "a receive");
	must(!post(bench, pair.one, IBV_WR_SEND, 0, 8, 0), "a send");
	say_next(bench, bench->send_cq, "after");
	say_next(bench, bench->recv_cq, "after");
	pair_end(&pair);
}

CASE(what_a_queue_pair_says_of_itself)
{
	struct options options = usual();
	struct pair pair = pair_new(bench, options);
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;

	must(!ibv_query_qp(pair.one, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_CAP, &init), "a query");
	say("state=%s peer=%s mtu=%d rights=%x", state_name(attr.qp_state),
	    attr.dest_qp_num == pair.other->qp_num ? "right" : "wrong", attr.path_mtu, attr.qp_access_flags & REMOTE_RIGHTS);
	say("timeout=%u retries=%u rnr=%u timer=%u", attr.timeout, attr.retry_cnt, attr.rnr_retry, attr.min_rnr_timer);
	say("reads=%u/%u psn=%u/%u", attr.max_rd_atomic, attr.max_dest_rd_atomic, attr.rq_psn, attr.sq_psn);
	say("port=%u hop=%u global=%u", attr.port_num, attr.ah_attr.grh.hop_limit, attr.ah_attr.is_global);
	say("enough=%d", attr.cap.max_send_wr >= 16 && attr.cap.max_recv_wr >= 16 && attr.cap.max_send_sge >= 4 &&
				 attr.cap.max_inline_data >= 64);
	must(!post(bench, pair.one, IBV_WR_RDMA_WRITE, 0, 5000, 8192), "a write of five packets");
	say_next(bench, bench->send_cq, "write");
	must(!ibv_query_qp(pair.one, &attr, IBV_QP_SQ_PSN, &init), "a query");
	say("psn=%u", attr.sq_psn);
	must(!ibv_query_qp(pair.other, &attr, IBV_QP_RQ_PSN, &init), "a query");
	say("psn=%u", attr.rq_psn);
	pair_end(&pair);
}
