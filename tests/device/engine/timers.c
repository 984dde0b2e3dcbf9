/* What takes time: the wire, and waiting for the other end. */
#include "rig.h"

#include <errno.h>

#define MS 1000000ull

CASE(a_receiver_that_is_not_ready_is_asked_again_until_it_is)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	send_now(&left, 1, IBV_WR_SEND, 0, 10, &right, 0);
	run_for(&rig, 50 * MS);
	expect_none(&rig.left);
	receive(&right, 2, 0, 10);
	/* Timer 12 is 0.64 ms. */
	run_for(&rig, 640000);
	expect(&rig.right, 2, IBV_WC_SUCCESS);
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(receiver_not_ready_gives_up_after_its_retries)
{
	struct rig rig;
	struct end left, right;

	rig_up(&rig);
	end_new(&left, &rig.left, IBV_QPT_RC, RNIC_NONE);
	end_new(&right, &rig.right, IBV_QPT_RC, RNIC_NONE);
	end_init(&left, 0);
	end_init(&right, 0);
	end_rtr(&left, &right);
	end_rtr(&right, &left);
	end_rts(&left, 7, 2);
	send_now(&left, 1, IBV_WR_SEND, 0, 10, &right, 0);
	run_for(&rig, 1279999);
	expect_none(&rig.left);
	run_for(&rig, 1);
	expect(&rig.left, 1, IBV_WC_RNR_RETRY_EXC_ERR);
	state_is(&left, IBV_QPS_ERR);
	state_is(&right, IBV_QPS_RTR);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(without_an_answer_a_request_fails_after_its_retries)
{
	struct rig rig;
	struct end left, right;
	const uint64_t timeout = 4096ull << 10;

	rc_pair(&rig, &left, &right);
	rnic_part(rig.left.device, rig.right.device, true);
	send_now(&left, 1, IBV_WR_RDMA_WRITE, 0, 10, &right, 0);
	send_now(&left, 2, IBV_WR_RDMA_WRITE, 0, 10, &right, 0);
	run_for(&rig, 8 * timeout - 1);
	expect_none(&rig.left);
	run_for(&rig, 1);
	expect(&rig.left, 1, IBV_WC_RETRY_EXC_ERR);
	expect(&rig.left, 2, IBV_WC_WR_FLUSH_ERR);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(a_partition_that_heals_in_time_costs_only_time)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	rnic_part(rig.left.device, rig.right.device, true);
	memset(rig.left.memory, 9, 10);
	send_now(&left, 1, IBV_WR_RDMA_WRITE, 0, 10, &right, 0);
	run_for(&rig, 10 * MS);
	rnic_part(rig.left.device, rig.right.device, false);
	run_for(&rig, 5 * MS);
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	SAME(rig.right.memory[9], 9);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(a_device_that_was_kept_from_running_does_not_blame_its_peer)
{
	struct rig rig;
	struct end left, right;

	rig_up(&rig);
	end_new(&left, &rig.left, IBV_QPT_RC, RNIC_NONE);
	end_new(&right, &rig.right, IBV_QPT_RC, RNIC_NONE);
	end_init(&left, 0);
	end_init(&right, IBV_ACCESS_REMOTE_WRITE);
	end_rtr(&left, &right);
	end_rtr(&right, &left);
	end_rts(&left, 0, 7);
	SAME(rnic_set(rig.left.device, "latency", 5000), 0);
	SAME(rnic_set(rig.right.device, "latency", 5000), 0);
	send_now(&left, 1, IBV_WR_RDMA_WRITE, 0, 10, &right, 0);
	run(&rig);
	/* Everything is late at once: the request's arrival and the timer for its answer. */
	rig_time += 500 * MS;
	run_for(&rig, 10000);
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	SAME(rnic_count(rig.left.device, "retries"), 0);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(a_peer_that_is_gone_is_not_another_with_its_number)
{
	struct rig rig;
	struct end left, right, other;

	rc_pair(&rig, &left, &right);
	SAME(rnic_destroy_qp(rig.right.context, right.qp), 0);
	end_new(&other, &rig.right, IBV_QPT_RC, RNIC_NONE);
	/* A freed number comes back at once. */
	SAME(other.qpn, right.qpn);
	send_now(&left, 1, IBV_WR_RDMA_WRITE, 0, 10, &right, 0);
	run_for(&rig, 100 * MS);
	expect(&rig.left, 1, IBV_WC_RETRY_EXC_ERR);
	SAME(rnic_destroy_qp(rig.right.context, other.qp), 0);
	SAME(rnic_destroy_qp(rig.left.context, left.qp), 0);
	free(left.sq), free(left.rq), free(right.sq), free(right.rq), free(other.sq), free(other.rq);
	rig_down(&rig);
}

CASE(bytes_in_flight_by_bandwidth_is_a_time)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	SAME(rnic_set(rig.left.device, "bandwidth", 100000000), 0); /* 100 MB/s */
	SAME(rnic_set(rig.left.device, "latency", 50000), 0);
	for (uint64_t i = 0; i < 3; i++)
		send_now(&left, i, IBV_WR_RDMA_WRITE, 0, 1000000, &right, 0);
	/* 10 ms on the wire each, 0.05 ms of way; the answer takes none. */
	run_for(&rig, 10050000 - 1);
	expect_none(&rig.left);
	run_for(&rig, 1);
	expect(&rig.left, 0, IBV_WC_SUCCESS);
	run_for(&rig, 10 * MS - 1);
	expect_none(&rig.left);
	CHECK(rnic_count(rig.left.device, "in_flight") > 0);
	run_for(&rig, 1);
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	run_for(&rig, 10 * MS);
	expect(&rig.left, 2, IBV_WC_SUCCESS);
	SAME(rnic_count(rig.left.device, "in_flight"), 0);
	SAME(rnic_count(rig.left.device, "bytes"), 3000000);
	SAME(rnic_count(rig.left.device, "retries"), 0);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(two_queue_pairs_share_a_wire_evenly)
{
	struct rig rig;
	struct end left, right, left2, right2;

	rc_pair(&rig, &left, &right);
	end_new(&left2, &rig.left, IBV_QPT_RC, RNIC_NONE);
	end_new(&right2, &rig.right, IBV_QPT_RC, RNIC_NONE);
	connect_ends(&left2, &right2);
	SAME(rnic_set(rig.left.device, "bandwidth", 1000000000), 0);
	send_now(&left, 1, IBV_WR_RDMA_WRITE, 0, 3000000, &right, 0);
	send_now(&left2, 2, IBV_WR_RDMA_WRITE, 0, 1000000, &right2, 0);
	run_for(&rig, 2300000);
	expect(&rig.left, 2, IBV_WC_SUCCESS);
	expect_none(&rig.left);
	run_for(&rig, 1700000);
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	end_destroy(&left);
	end_destroy(&right);
	end_destroy(&left2);
	end_destroy(&right2);
	rig_down(&rig);
}

CASE(a_read_occupies_the_other_hosts_wire)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	SAME(rnic_set(rig.right.device, "bandwidth", 100000000), 0);
	send_now(&left, 1, IBV_WR_RDMA_READ, 0, 1000000, &right, 0);
	run_for(&rig, 10 * MS - 1);
	expect_none(&rig.left);
	run_for(&rig, 1);
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(an_unreliable_send_is_complete_when_it_has_left)
{
	struct rig rig;
	struct end left, right;

	rig_up(&rig);
	end_new(&left, &rig.left, IBV_QPT_UC, RNIC_NONE);
	end_new(&right, &rig.right, IBV_QPT_UC, RNIC_NONE);
	connect_ends(&left, &right);
	SAME(rnic_set(rig.left.device, "bandwidth", 1000000), 0);
	SAME(rnic_set(rig.left.device, "latency", 5 * MS), 0);
	receive(&right, 9, 0, 1000);
	send_now(&left, 1, IBV_WR_SEND, 0, 1000, &right, 0);
	run_for(&rig, MS - 1);
	expect_none(&rig.left);
	run_for(&rig, 1);
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	run_for(&rig, 5 * MS - 1);
	expect_none(&rig.right);
	run_for(&rig, 1);
	expect(&rig.right, 9, IBV_WC_SUCCESS);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(a_process_that_dies_takes_its_objects_and_leaves_what_is_under_way)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	SAME(rnic_set(rig.left.device, "bandwidth", 100000000), 0);
	SAME(rnic_set(rig.left.device, "latency", 50000), 0);
	send_now(&left, 1, IBV_WR_RDMA_WRITE, 0, 1000000, &right, 0);
	send_now(&right, 5, IBV_WR_RDMA_READ, 0, 1000000, &left, 0);
	run_for(&rig, 3 * MS);
	rnic_close(rig.left.context);
	rig.left.context = NULL;
	SAME(rnic_count(rig.left.device, "qps"), 0);
	SAME(rnic_count(rig.left.device, "mrs"), 0);
	SAME(rnic_count(rig.left.device, "cqs"), 0);
	run_for(&rig, 100 * MS);
	expect(&rig.right, 5, IBV_WC_RETRY_EXC_ERR);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(with_a_clock_that_stands_still_a_request_waits_for_receive_and_peer)
{
	struct rig rig;
	struct end left, right;

	rig_up(&rig);
	SAME(rnic_set(rig.left.device, "wait_for_peer", 1), 0);
	SAME(rnic_set(rig.right.device, "wait_for_peer", 1), 0);
	end_new(&left, &rig.left, IBV_QPT_RC, RNIC_NONE);
	end_new(&right, &rig.right, IBV_QPT_RC, RNIC_NONE);
	end_init(&left, 0);
	end_init(&right, IBV_ACCESS_REMOTE_WRITE);
	end_rtr(&left, &right);
	end_rts(&left, 0, 0);
	send_now(&left, 1, IBV_WR_RDMA_WRITE, 0, 8, &right, 0);
	send_now(&left, 2, IBV_WR_SEND, 0, 8, &right, 0);
	run(&rig);
	expect_none(&rig.left);
	end_rtr(&right, &left);
	run(&rig);
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	expect_none(&rig.left);
	receive(&right, 3, 0, 8);
	run(&rig);
	expect(&rig.left, 2, IBV_WC_SUCCESS);
	expect(&rig.right, 3, IBV_WC_SUCCESS);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(with_a_clock_that_stands_still_an_answer_may_be_as_late_as_it_likes)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	SAME(rnic_set(rig.left.device, "wait_for_peer", 1), 0);
	SAME(rnic_set(rig.right.device, "wait_for_peer", 1), 0);
	SAME(rnic_set(rig.right.device, "loss_rc", 1000000), 0);
	send_now(&left, 1, IBV_WR_RDMA_WRITE, 0, 10, &right, 0);
	run_for(&rig, 100 * (4096ull << 10));
	expect_none(&rig.left);
	SAME(rnic_set(rig.right.device, "loss_rc", 0), 0);
	run_for(&rig, 100 * (4096ull << 10));
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

/* The receive comes when the request, or the word that there was none, has been under way for a while. */
static void completes_with_a_receive_after(uint64_t ns, bool shared)
{
	struct rig rig;
	struct end left, right;
	struct rnic_ring *ring = ring_new(8, rnic_stride(sizeof(struct rnic_receive), 2, 0));
	uint32_t srq = RNIC_NONE, srqn;

	rig_up(&rig);
	struct party *parties[] = { &rig.left, &rig.right };
	for (int i = 0; i < 2; i++) {
		SAME(rnic_set(parties[i]->device, "wait_for_peer", 1), 0);
		SAME(rnic_set(parties[i]->device, "latency", 1000), 0);
	}
	struct rnic_srq_init init = {
		.pd = rig.right.pd, .type = IBV_SRQT_BASIC, .max_wr = 8, .max_sge = 2, .ring = ring
	};
	if (shared)
		SAME(rnic_create_srq(rig.right.context, &init, &srq, &srqn), 0);
	end_new(&left, &rig.left, IBV_QPT_RC, RNIC_NONE);
	end_new(&right, &rig.right, IBV_QPT_RC, srq);
	connect_ends(&left, &right);
	send_now(&left, 1, IBV_WR_SEND, 0, 8, &right, 0);
	run_for(&rig, ns);
	if (shared) {
		ring_receive(ring, &rig.right, 2, 0, 8);
		SAME(rnic_srq_doorbell(rig.right.context, srq), 0);
	} else {
		receive(&right, 2, 0, 8);
	}
	run_for(&rig, MS);
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	expect(&rig.right, 2, IBV_WC_SUCCESS);
	end_destroy(&left);
	end_destroy(&right);
	if (shared)
		SAME(rnic_destroy_srq(rig.right.context, srq), 0);
	free(ring);
	rig_down(&rig);
}

CASE(a_receive_posted_while_the_word_that_there_was_none_is_under_way_is_found)
{
	for (uint64_t ns = 500; ns < 3000; ns += 1000) {
		completes_with_a_receive_after(ns, false);
		completes_with_a_receive_after(ns, true);
	}
}
