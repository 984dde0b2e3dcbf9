/* Rights that depend on more than one number being right. */
#include "rig.h"

CASE(a_key_is_more_than_its_index)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	request(&left, 1, IBV_WR_RDMA_WRITE, 0, 8)->sges[0].lkey ^= 2;
	post(&left);
	run(&rig);
	expect(&rig.left, 1, IBV_WC_LOC_PROT_ERR);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(an_address_that_is_not_the_connections_is_not_heard)
{
	struct rig rig;
	struct end left, right;
	const uint8_t moved[16] = { [10] = 0xff, [11] = 0xff, 10, 0, 0, 77 };

	rc_pair(&rig, &left, &right);
	/* A third end with everything right but its address: as the old place of a QP that has moved. */
	SAME(rnic_gid_set(rig.left.device, 2, moved, 1, 2), 0);
	struct ibv_qp_attr reset = { .qp_state = IBV_QPS_RESET };
	SAME(end_modify(&left, &reset, IBV_QP_STATE), 0);
	end_init(&left, 0);
	left.gid_index = 2;
	end_rtr(&left, &right);
	end_rts(&left, 1, 7);
	memset(rig.left.memory, 5, 8);
	send_now(&left, 1, IBV_WR_RDMA_WRITE, 0, 8, &right, 0);
	run_for(&rig, 100000000);
	expect(&rig.left, 1, IBV_WC_RETRY_EXC_ERR);
	SAME(rig.right.memory[0], 0);
	state_is(&right, IBV_QPS_RTS);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(no_more_reads_are_under_way_than_agreed)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	SAME(rnic_set(rig.left.device, "latency", 100000), 0);
	for (uint64_t i = 0; i < 5; i++)
		send_now(&left, i, IBV_WR_RDMA_READ, 0, 8, &right, 0);
	/* Four were agreed: the fifth starts when the first has come back, and takes another way there. */
	run_for(&rig, 100000);
	for (uint64_t i = 0; i < 4; i++)
		expect(&rig.left, i, IBV_WC_SUCCESS);
	expect_none(&rig.left);
	run_for(&rig, 100000);
	expect(&rig.left, 4, IBV_WC_SUCCESS);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(a_fenced_request_sends_what_the_read_before_it_brought)
{
	struct rig rig;
	struct end left, right;

	for (int fenced = 0; fenced < 2; fenced++) {
		rc_pair(&rig, &left, &right);
		SAME(rnic_set(rig.left.device, "latency", 100000), 0);
		memset(rig.right.memory, 8, 8);
		send_now(&left, 1, IBV_WR_RDMA_READ, 0, 8, &right, 0);
		struct rnic_send *wr = request(&left, 2, IBV_WR_RDMA_WRITE, 0, 8);
		wr->flags |= fenced ? IBV_SEND_FENCE : 0;
		wr->rdma.address = (uintptr_t)rig.right.memory + 64;
		wr->rdma.rkey = rig.right.rkey;
		post(&left);
		run_for(&rig, 1000000);
		expect(&rig.left, 1, IBV_WC_SUCCESS);
		expect(&rig.left, 2, IBV_WC_SUCCESS);
		SAME(rig.right.memory[64], fenced ? 8 : 0);
		end_destroy(&left);
		end_destroy(&right);
		rig_down(&rig);
	}
}

static uint32_t bound(struct rig *rig, struct end *end, uint32_t mr, uint32_t *mw, enum ibv_wc_status status)
{
	uint32_t rkey;

	SAME(rnic_alloc_mw(end->party->context, end->party->pd, IBV_MW_TYPE_2, mw, &rkey), 0);
	struct rnic_send *wr = request(end, 1, IBV_WR_BIND_MW, 0, 0);
	wr->bind.mw = *mw;
	wr->bind.mr = mr;
	wr->bind.address = (uintptr_t)end->party->memory;
	wr->bind.length = 100;
	wr->bind.rkey = rkey + 1;
	wr->bind.present = rkey;
	wr->bind.access = IBV_ACCESS_REMOTE_WRITE;
	post(end);
	run(rig);
	expect(end->party, 1, status);
	return rkey + 1;
}

CASE(a_region_without_the_right_to_windows_gets_none)
{
	struct rig rig;
	struct end left, right;
	uint32_t mr, lkey, rkey, mw;

	rc_pair(&rig, &left, &right);
	SAME(rnic_reg_mr(rig.right.context, rig.right.pd, (uintptr_t)rig.right.memory, 100, (uintptr_t)rig.right.memory,
			 IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE, &mr, &lkey, &rkey),
	     0);
	bound(&rig, &right, mr, &mw, IBV_WC_MW_BIND_ERR);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(a_window_is_one_queue_pairs_and_ends_by_its_own_key)
{
	struct rig rig;
	struct end left, right, left2, right2;
	uint32_t mw, other;

	rc_pair(&rig, &left, &right);
	end_new(&left2, &rig.left, IBV_QPT_RC, RNIC_NONE);
	end_new(&right2, &rig.right, IBV_QPT_RC, RNIC_NONE);
	connect_ends(&left2, &right2);
	uint32_t rkey = bound(&rig, &right, rig.right.mr, &mw, IBV_WC_SUCCESS);
	/* A stale key of its own window invalidates nothing. */
	request(&right2, 4, IBV_WR_LOCAL_INV, 0, 0)->imm = bound(&rig, &right2, rig.right.mr, &other, IBV_WC_SUCCESS) - 1;
	post(&right2);
	run(&rig);
	expect(&rig.right, 4, IBV_WC_LOC_QP_OP_ERR);
	SAME(rnic_destroy_qp(rig.right.context, right2.qp), 0);
	SAME(rnic_destroy_qp(rig.left.context, left2.qp), 0);
	free(left2.sq), free(left2.rq), free(right2.sq), free(right2.rq);
	end_new(&left2, &rig.left, IBV_QPT_RC, RNIC_NONE);
	end_new(&right2, &rig.right, IBV_QPT_RC, RNIC_NONE);
	connect_ends(&left2, &right2);
	rig.right.rkey = rkey;
	send_now(&left, 2, IBV_WR_RDMA_WRITE, 0, 8, &right, 0);
	run(&rig);
	expect(&rig.left, 2, IBV_WC_SUCCESS);
	send_now(&left2, 3, IBV_WR_RDMA_WRITE, 0, 8, &right2, 0);
	run(&rig);
	expect(&rig.left, 3, IBV_WC_REM_ACCESS_ERR);
	end_destroy(&left);
	end_destroy(&right);
	end_destroy(&left2);
	end_destroy(&right2);
	rig_down(&rig);
}
