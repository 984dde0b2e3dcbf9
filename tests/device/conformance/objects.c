/* Objects that hold one another, completion queues and their events, shared receive queues. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "conformance.h"

CASE(objects_in_use_do_not_end)
{
	struct pair pair = pair_new(bench, usual());

	say_error("PD", ibv_dealloc_pd(bench->pd));
	say_error("completion queue", ibv_destroy_cq(bench->send_cq));
	say_error("channel", ibv_destroy_comp_channel(bench->channel));
	pair_end(&pair);
}

CASE(objects_that_cannot_be_made)
{
	struct ibv_qp_init_attr init = { .send_cq = bench->send_cq, .recv_cq = bench->recv_cq, .qp_type = IBV_QPT_RC,
					 .cap = { .max_send_wr = 1u << 30, .max_send_sge = 1 } };
	struct ibv_ah_attr route = { .port_num = 9, .is_global = 1 };

	say("region whose peers may write and its owner not=%s",
	    ibv_reg_mr(bench->pd, bench->memory, 4096, IBV_ACCESS_REMOTE_WRITE) ? "made" : errno == EINVAL ? "EINVAL" : "other");
	say("queue too deep=%s", ibv_create_qp(bench->pd, &init) ? "made" : errno == EINVAL ? "EINVAL" : "other");
	say("completion queue of no entries=%s",
	    ibv_create_cq(bench->context, 0, NULL, NULL, 0) ? "made" : errno == EINVAL ? "EINVAL" : "other");
	say("route on port 9=%s", ibv_create_ah(bench->pd, &route) ? "made" : errno == EINVAL ? "EINVAL" : "other");
}

CASE(an_armed_completion_queue_tells_once)
{
	struct pair pair = pair_new(bench, usual());

	must(!ibv_req_notify_cq(bench->send_cq, 0), "arming");
	for (int i = 0; i < 2; i++) {
		struct ibv_wc wc;

		must(!post(bench, pair.one, IBV_WR_RDMA_WRITE, 0, 8, 4096), "a write");
		must(next(bench->send_cq, &wc), "its completion");
		say("event=%d", told(bench, i ? 100 : 1000));
	}
	pair_end(&pair);
}

CASE(a_queue_armed_for_solicited_waits_for_one)
{
	struct pair pair = pair_new(bench, usual());
	struct ibv_sge one = sge(bench, 0, 8);
	struct ibv_send_wr wr = { .sg_list = &one, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED };

	must(!ibv_req_notify_cq(bench->recv_cq, 1), "arming");
	for (int i = 0; i < 2; i++) {
		struct ibv_wc wc;

		must(!receive(bench, pair.other, 4096, 8), "a receive");
		if (i)
			wr.send_flags |= IBV_SEND_SOLICITED;
		must(!post_wr(pair.one, &wr), "a send");
		must(next(bench->recv_cq, &wc), "its arrival");
		say("event=%d", told(bench, i ? 1000 : 100));
	}
	pair_end(&pair);
}

CASE(a_full_completion_queue_overflows)
{
	struct ibv_cq *small = ibv_create_cq(bench->context, 4, NULL, NULL, 0), *usual_cq = bench->send_cq;
	struct options options = usual();
	struct pair pair;
	struct ibv_wc wc;
	int count = 0;

	must(small, "a small completion queue");
	options.depth = (uint32_t)small->cqe + 8;
	bench->send_cq = small;
	pair = pair_new(bench, options);
	for (int i = 0; i < small->cqe + 2; i++)
		must(!post(bench, pair.one, IBV_WR_RDMA_WRITE, 0, 8, 4096), "a write");
	say("event=%s", next_event(bench));
	while (ibv_poll_cq(small, 1, &wc) == 1)
		count++;
	say("missing=%d", small->cqe + 2 - count);
	pair_end(&pair);
	must(!ibv_destroy_cq(small), "ending the small completion queue");
	bench->send_cq = usual_cq;
}

CASE(a_completion_queue_keeps_its_contents_when_resized)
{
	struct pair pair = pair_new(bench, usual());
	struct ibv_wc wc;

	for (int i = 0; i < 5; i++)
		must(!post(bench, pair.one, IBV_WR_RDMA_WRITE, 0, 8, 4096), "a write");
	must(next(bench->send_cq, &wc), "the first");
	/* All of them are there once another one's effect is. */
	must(!receive(bench, pair.other, 4096, 8) && !post(bench, pair.one, IBV_WR_SEND, 0, 8, 0), "a send");
	must(next(bench->recv_cq, &wc), "its arrival");
	say_error("resize", ibv_resize_cq(bench->send_cq, 200));
	say("larger=%d", bench->send_cq->cqe >= 200);
	for (int i = 0; i < 5; i++)
		say_next(bench, bench->send_cq, "");
	pair_end(&pair);
}

static struct ibv_srq *srq_new(struct bench *bench, uint32_t depth)
{
	struct ibv_srq_init_attr init = { .attr = { .max_wr = depth, .max_sge = 2 } };
	struct ibv_srq *srq = ibv_create_srq(bench->pd, &init);

	must(srq, "a shared receive queue");
	return srq;
}

static int srq_receive(struct bench *bench, struct ibv_srq *srq)
{
	struct ibv_sge one = sge(bench, 4096, 100);
	struct ibv_recv_wr wr = { .sg_list = &one, .num_sge = 1 }, *bad;

	return ibv_post_srq_recv(srq, &wr, &bad);
}

CASE(a_shared_queue_tells_its_limit_once)
{
	struct options options = usual();
	struct ibv_srq_attr attr = { .srq_limit = 2 };
	struct pair pair;

	options.srq = srq_new(bench, 8);
	pair = pair_new(bench, options);
	for (int i = 0; i < 4; i++)
		must(!srq_receive(bench, options.srq), "a receive");
	say_error("limit", ibv_modify_srq(options.srq, &attr, IBV_SRQ_LIMIT));
	for (int i = 0; i < 4; i++) {
		must(!post(bench, pair.one, IBV_WR_SEND, 0, 8, 0), "a send");
		say_next(bench, bench->recv_cq, "");
	}
	say("event=%s", next_event(bench));
	say("then=%s", next_event(bench));
	must(!ibv_query_srq(options.srq, &attr), "a query");
	say("limit=%u", attr.srq_limit);
	say_error("in use", ibv_destroy_srq(options.srq));
	pair_end(&pair);
	must(!ibv_destroy_srq(options.srq), "ending the shared queue");
}

CASE(an_empty_shared_queue_is_waited_for)
{
	struct options options = usual();
	struct pair pair;

	options.srq = srq_new(bench, 8);
	pair = pair_new(bench, options);
	must(!post(bench, pair.one, IBV_WR_SEND, 0, 8, 0), "a send");
	say("before=%s", quiet(bench->recv_cq) ? "nothing" : "something");
	must(!srq_receive(bench, options.srq), "a receive");
	say_next(bench, bench->recv_cq, "receive");
	say_error("own receive", receive(bench, pair.other, 0, 8));
	pair_end(&pair);
	must(!ibv_destroy_srq(options.srq), "ending the shared queue");
}

CASE(a_shared_queue_is_full_and_its_limit_has_an_end)
{
	struct ibv_srq *srq = srq_new(bench, 8);
	struct ibv_srq_attr attr = { .srq_limit = 1u << 20 };
	int error = 0;

	say_error("limit beyond the depth", ibv_modify_srq(srq, &attr, IBV_SRQ_LIMIT));
	for (int i = 0; i < 1000 && !error; i++)
		error = srq_receive(bench, srq);
	say_error("receives without end", error);
	must(!ibv_destroy_srq(srq), "ending the shared queue");
}

CASE(a_shared_queue_outlives_a_broken_queue_pair)
{
	struct options options = usual();
	struct pair pair, second;

	options.srq = srq_new(bench, 8);
	pair = pair_new(bench, options);
	second = pair_new(bench, options);
	must(!srq_receive(bench, options.srq), "a receive");
	must(!to(pair.other, IBV_QPS_ERR), "ERR");
	say("event=%s", next_event(bench));
	say("flushed=%s", quiet(bench->recv_cq) ? "nothing" : "something");
	must(!post(bench, second.one, IBV_WR_SEND, 0, 8, 0), "a send to the other");
	say_next(bench, bench->recv_cq, "receive");
	pair_end(&pair);
	pair_end(&second);
	must(!ibv_destroy_srq(options.srq), "ending the shared queue");
}
