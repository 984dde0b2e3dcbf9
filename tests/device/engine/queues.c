/* Completion queues, shared receive queues, and what happens to queues when a QP leaves service. */
#include "rig.h"

#include <errno.h>

CASE(a_full_completion_queue_loses_completions_and_says_so)
{
	struct rig rig;
	struct end left, right;
	uint32_t cq;
	struct rnic_ring *small = ring_new(3, sizeof(struct rnic_completion)), *other;

	rc_pair(&rig, &left, &right);
	SAME(rnic_destroy_qp(rig.left.context, left.qp), 0);
	free(left.sq), free(left.rq);
	SAME(rnic_create_cq(rig.left.context, small, 78, &cq), 0);
	uint32_t kept = rig.left.cq;
	rig.left.cq = cq;
	end_new(&left, &rig.left, IBV_QPT_RC, RNIC_NONE);
	rig.left.cq = kept;
	end_init(&left, 0);
	end_rtr(&left, &right);
	end_rts(&left, 7, 7);
	for (uint64_t i = 0; i < 5; i++)
		send_now(&left, i, IBV_WR_RDMA_WRITE, 0, 8, &right, 0);
	run(&rig);
	SAME(rnic_count(rig.left.device, "overflows"), 2);
	expect_event(&rig.left, IBV_EVENT_CQ_ERR);
	SAME(rig.left.event_count, 0);
	other = rig.left.cq_ring;
	rig.left.cq_ring = small;
	for (uint64_t i = 0; i < 3; i++)
		expect(&rig.left, i, IBV_WC_SUCCESS);
	expect_none(&rig.left);
	rig.left.cq_ring = other;
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
	free(small);
}

CASE(an_armed_queue_tells_once)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	rig.left.cq_ring->armed = RNIC_ARMED_ANY;
	rig.right.cq_ring->armed = RNIC_ARMED_SOLICITED;
	for (uint64_t i = 0; i < 3; i++) {
		receive(&right, i, 0, 8);
		request(&left, i, IBV_WR_SEND, 0, 8)->flags |= i == 1 ? IBV_SEND_SOLICITED : 0;
		post(&left);
		run(&rig);
		SAME(rig.right.completion_events, i >= 1);
	}
	SAME(rig.left.completion_events, 1);
	SAME(rig.left.cq_ring->armed, RNIC_ARMED_NOT);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(resizing_keeps_what_was_not_polled)
{
	struct rig rig;
	struct end left, right;
	struct rnic_ring *large = ring_new(100, sizeof(struct rnic_completion));
	struct rnic_ring *tiny = ring_new(2, sizeof(struct rnic_completion));

	rc_pair(&rig, &left, &right);
	for (uint64_t i = 0; i < 5; i++)
		send_now(&left, i, IBV_WR_RDMA_WRITE, 0, 8, &right, 0);
	run(&rig);
	expect(&rig.left, 0, IBV_WC_SUCCESS);
	SAME(rnic_resize_cq(rig.left.context, rig.left.cq, tiny), EINVAL);
	SAME(rnic_resize_cq(rig.left.context, rig.left.cq, large), 0);
	free(rig.left.cq_ring);
	rig.left.cq_ring = large;
	send_now(&left, 5, IBV_WR_RDMA_WRITE, 0, 8, &right, 0);
	run(&rig);
	for (uint64_t i = 1; i < 6; i++)
		expect(&rig.left, i, IBV_WC_SUCCESS);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
	free(tiny);
}

CASE(purging_removes_one_qps_completions_and_keeps_the_order)
{
	struct rig rig;
	struct end left, right, left2, right2;

	rc_pair(&rig, &left, &right);
	end_new(&left2, &rig.left, IBV_QPT_RC, RNIC_NONE);
	end_new(&right2, &rig.right, IBV_QPT_RC, RNIC_NONE);
	connect_ends(&left2, &right2);
	for (uint64_t i = 0; i < 9; i++) {
		struct end *end = i % 3 == 1 ? &left2 : &left;

		send_now(end, i, IBV_WR_RDMA_WRITE, 0, 8, i % 3 == 1 ? &right2 : &right, 0);
		run(&rig);
	}
	SAME(rnic_completions_purge(rig.left.cq_ring, left.qpn), 6);
	for (uint64_t i = 1; i < 9; i += 3)
		expect(&rig.left, i, IBV_WC_SUCCESS);
	expect_none(&rig.left);
	send_now(&left2, 20, IBV_WR_RDMA_WRITE, 0, 8, &right2, 0);
	run(&rig);
	expect(&rig.left, 20, IBV_WC_SUCCESS);
	end_destroy(&left);
	end_destroy(&right);
	end_destroy(&left2);
	end_destroy(&right2);
	rig_down(&rig);
}

CASE(reset_forgets_what_was_posted_and_the_qp_works_again)
{
	struct rig rig;
	struct end left, right;
	struct ibv_qp_attr reset = { .qp_state = IBV_QPS_RESET };

	rc_pair(&rig, &left, &right);
	receive(&right, 1, 0, 8);
	send_now(&left, 2, IBV_WR_SEND, 0, 8, &right, 0);
	send_now(&left, 3, IBV_WR_SEND, 0, 8, &right, 0);
	run(&rig);
	receive(&left, 4, 0, 8);
	SAME(end_modify(&left, &reset, IBV_QP_STATE), 0);
	SAME(end_modify(&right, &reset, IBV_QP_STATE), 0);
	run_for(&rig, 100000000);
	/* What had completed stays in its queue; what had not is gone. */
	expect(&rig.left, 2, IBV_WC_SUCCESS);
	expect_none(&rig.left);
	expect(&rig.right, 1, IBV_WC_SUCCESS);
	SAME(left.sq->consumed, left.sq->produced);
	SAME(left.rq->consumed, left.rq->produced);
	connect_ends(&left, &right);
	receive(&right, 5, 0, 8);
	send_now(&left, 6, IBV_WR_SEND, 0, 8, &right, 0);
	run(&rig);
	expect(&rig.left, 6, IBV_WC_SUCCESS);
	expect(&rig.right, 5, IBV_WC_SUCCESS);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(draining_ends_with_an_event_and_goes_on_afterwards)
{
	struct rig rig;
	struct end left, right;
	struct ibv_qp_attr drain = { .qp_state = IBV_QPS_SQD, .en_sqd_async_notify = 1 }, attr;
	struct ibv_qp_attr on = { .qp_state = IBV_QPS_RTS };

	rc_pair(&rig, &left, &right);
	SAME(rnic_set(rig.left.device, "bandwidth", 1000000000), 0);
	send_now(&left, 1, IBV_WR_RDMA_WRITE, 0, 1000000, &right, 0);
	run_for(&rig, 500000);
	SAME(end_modify(&left, &drain, IBV_QP_STATE | IBV_QP_EN_SQD_ASYNC_NOTIFY), 0);
	send_now(&left, 2, IBV_WR_RDMA_WRITE, 0, 8, &right, 0);
	SAME(rnic_query_qp(rig.left.context, left.qp, &attr), 0);
	SAME(attr.sq_draining, 1);
	run_for(&rig, 10000000);
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	expect_none(&rig.left);
	expect_event(&rig.left, IBV_EVENT_SQ_DRAINED);
	SAME(rnic_query_qp(rig.left.context, left.qp, &attr), 0);
	SAME(attr.sq_draining, 0);
	SAME(end_modify(&left, &on, IBV_QP_STATE), 0);
	run_for(&rig, 10000000);
	expect(&rig.left, 2, IBV_WC_SUCCESS);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

static uint32_t srq_new(struct party *party, struct rnic_ring **ring, uint32_t limit, uint32_t *srqn)
{
	uint32_t srq;
	struct rnic_srq_init init = { .pd = party->pd, .type = IBV_SRQT_BASIC, .max_wr = 8, .max_sge = 2, .limit = limit,
				      .cookie = 66 };

	init.ring = *ring = ring_new(8, rnic_stride(sizeof(struct rnic_receive), 2, 0));
	SAME(rnic_create_srq(party->context, &init, &srq, srqn), 0);
	return srq;
}

CASE(a_shared_queue_feeds_several_qps_and_tells_its_limit_once)
{
	struct rig rig;
	struct end left[2], right[2];
	struct rnic_ring *ring;
	uint32_t srq, srqn, limit = 4;
	struct ibv_srq_attr attr;

	rig_up(&rig);
	srq = srq_new(&rig.right, &ring, 0, &srqn);
	for (int i = 0; i < 2; i++) {
		end_new(&left[i], &rig.left, IBV_QPT_RC, RNIC_NONE);
		end_new(&right[i], &rig.right, IBV_QPT_RC, srq);
		connect_ends(&left[i], &right[i]);
	}
	SAME(rnic_modify_srq(rig.right.context, srq, &limit, NULL), 0);
	for (uint64_t i = 0; i < 6; i++)
		ring_receive(ring, &rig.right, i, (uint32_t)i * 100, 100);
	for (uint64_t i = 0; i < 6; i++) {
		send_now(&left[i % 2], i, IBV_WR_SEND, 0, 8, &right[i % 2], 0);
		run(&rig);
		struct rnic_completion got = expect(&rig.right, i, IBV_WC_SUCCESS);
		SAME(got.qpn, right[i % 2].qpn);
		SAME(got.srqn, srqn);
		/* After the third, three are left: fewer than four. */
		SAME(rig.right.event_count, i >= 2);
	}
	expect_event(&rig.right, IBV_EVENT_SRQ_LIMIT_REACHED);
	SAME(rnic_query_srq(rig.right.context, srq, &attr), 0);
	SAME(attr.srq_limit, 0);
	/* An empty one is not ready, and says so until there is one. */
	send_now(&left[0], 10, IBV_WR_SEND, 0, 8, &right[0], 0);
	run_for(&rig, 5000000);
	ring_receive(ring, &rig.right, 11, 0, 100);
	SAME(rnic_srq_doorbell(rig.right.context, srq), 0);
	run_for(&rig, 640000);
	expect(&rig.right, 11, IBV_WC_SUCCESS);
	SAME(rnic_destroy_srq(rig.right.context, srq), EBUSY);
	for (int i = 0; i < 2; i++) {
		end_destroy(&left[i]);
		end_destroy(&right[i]);
	}
	SAME(rnic_destroy_srq(rig.right.context, srq), 0);
	rig_down(&rig);
	free(ring);
}

CASE(the_last_request_of_a_shared_queue_is_told_in_error)
{
	struct rig rig;
	struct end left, right;
	struct rnic_ring *ring;
	uint32_t srqn, srq;
	struct ibv_qp_attr error = { .qp_state = IBV_QPS_ERR };

	rig_up(&rig);
	srq = srq_new(&rig.right, &ring, 0, &srqn);
	end_new(&left, &rig.left, IBV_QPT_RC, RNIC_NONE);
	end_new(&right, &rig.right, IBV_QPT_RC, srq);
	connect_ends(&left, &right);
	ring_receive(ring, &rig.right, 1, 0, 100);
	SAME(end_modify(&right, &error, IBV_QP_STATE), 0);
	expect_event(&rig.right, IBV_EVENT_QP_LAST_WQE_REACHED);
	/* The shared queue is not the QP's to flush. */
	expect_none(&rig.right);
	SAME(ring->consumed, 0);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
	free(ring);
}

CASE(a_request_list_beyond_its_queue_is_not_believed)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	/* A broken or hostile application: counters, counts and lengths that cannot be. */
	left.sq->produced = 1000000;
	SAME(rnic_doorbell(rig.left.context, left.qp), 0);
	run(&rig);
	expect_none(&rig.left);
	left.sq->produced = 0;
	request(&left, 1, IBV_WR_RDMA_WRITE, 0, 8)->num_sge = 0x7fffffff;
	post(&left);
	run(&rig);
	expect(&rig.left, 1, IBV_WC_LOC_QP_OP_ERR);
	right.rq->produced = 77;
	struct rnic_receive *wr = (struct rnic_receive *)(void *)right.rq->elements;
	wr->num_sge = 0xffffffff;
	right.rq->produced = 1;
	run(&rig);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}
