/* States, windows, XRC, numbers, faults. */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>

#define WRITABLE_BY_ALL (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE)

CASE(a_change_of_state_needs_its_attributes_and_no_others)
{
	struct rig rig;
	struct end end;
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1 };
	const int init = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;

	rig_up(&rig);
	end_new(&end, &rig.left, IBV_QPT_RC, RNIC_NONE);
	SAME(rnic_may_receive(rig.left.context, end.qp), EINVAL);
	SAME(end_modify(&end, &attr, init & ~IBV_QP_PORT), EINVAL);
	SAME(end_modify(&end, &attr, init | IBV_QP_QKEY), EINVAL);
	attr.port_num = 2;
	SAME(end_modify(&end, &attr, init), EINVAL);
	attr.port_num = 1;
	attr.qp_state = IBV_QPS_RTS;
	SAME(end_modify(&end, &attr, IBV_QP_STATE), EINVAL);
	attr.qp_state = IBV_QPS_INIT;
	SAME(end_modify(&end, &attr, init), 0);
	SAME(rnic_may_receive(rig.left.context, end.qp), 0);
	SAME(rnic_may_send(rig.left.context, end.qp), EINVAL);
	SAME(end_modify(&end, &attr, init), 0); /* INIT to INIT changes what INIT set */
	attr.qp_state = IBV_QPS_RTR;
	SAME(end_modify(&end, &attr, IBV_QP_STATE), EINVAL);
	attr.qp_state = IBV_QPS_ERR;
	SAME(end_modify(&end, &attr, IBV_QP_STATE), 0);
	attr.qp_state = IBV_QPS_INIT;
	SAME(end_modify(&end, &attr, init), EINVAL);
	attr.qp_state = IBV_QPS_RESET;
	SAME(end_modify(&end, &attr, IBV_QP_STATE), 0);
	state_is(&end, IBV_QPS_RESET);
	end_destroy(&end);
	rig_down(&rig);
}

CASE(a_window_opens_a_part_and_closes_it)
{
	struct rig rig;
	struct end left, right;
	uint32_t mw, rkey;
	struct rnic_send *wr;

	rc_pair(&rig, &left, &right);
	SAME(rnic_alloc_mw(rig.right.context, rig.right.pd, IBV_MW_TYPE_2, &mw, &rkey), 0);
	wr = request(&right, 1, IBV_WR_BIND_MW, 0, 0);
	wr->bind.mw = mw;
	wr->bind.mr = rig.right.mr;
	wr->bind.address = (uintptr_t)rig.right.memory + 100;
	wr->bind.length = 50;
	wr->bind.rkey = rkey + 1;
	wr->bind.present = rkey;
	wr->bind.access = IBV_ACCESS_REMOTE_WRITE;
	post(&right);
	run(&rig);
	SAME(expect(&rig.right, 1, IBV_WC_SUCCESS).opcode, IBV_WC_BIND_MW);
	SAME(rnic_dereg_mr(rig.right.context, rig.right.mr), EINVAL);
	rig.right.rkey = rkey + 1;
	send_now(&left, 2, IBV_WR_RDMA_WRITE, 0, 50, &right, 100);
	run(&rig);
	expect(&rig.left, 2, IBV_WC_SUCCESS);
	/* A send that invalidates it: afterwards it opens nothing. */
	receive(&right, 3, 0, 8);
	wr = request(&left, 3, IBV_WR_SEND_WITH_INV, 0, 8);
	wr->imm = rkey + 1;
	post(&left);
	send_now(&left, 4, IBV_WR_RDMA_WRITE, 0, 50, &right, 100);
	run(&rig);
	expect(&rig.left, 3, IBV_WC_SUCCESS);
	struct rnic_completion got = expect(&rig.right, 3, IBV_WC_SUCCESS);
	SAME(got.flags, IBV_WC_WITH_INV);
	SAME(got.imm, rkey + 1);
	expect(&rig.left, 4, IBV_WC_REM_ACCESS_ERR);
	SAME(rnic_dealloc_mw(rig.right.context, mw), 0);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(a_window_of_the_first_type_moves_and_a_bad_bind_fails)
{
	struct rig rig;
	struct end left, right;
	uint32_t mw, rkey;

	rc_pair(&rig, &left, &right);
	SAME(rnic_alloc_mw(rig.right.context, rig.right.pd, IBV_MW_TYPE_1, &mw, &rkey), 0);
	for (uint64_t i = 0; i < 3; i++) {
		struct rnic_send *wr = request(&right, i, IBV_WR_BIND_MW, 0, 0);

		wr->bind.mw = mw;
		wr->bind.mr = rig.right.mr;
		wr->bind.address = (uintptr_t)rig.right.memory + i * 100;
		wr->bind.length = i == 2 ? MEMORY : 100;
		wr->bind.rkey = rkey + (uint32_t)i + 1;
		wr->bind.present = rkey + (uint32_t)i;
		wr->bind.access = IBV_ACCESS_REMOTE_READ;
		post(&right);
		run(&rig);
		expect(&rig.right, i, i == 2 ? IBV_WC_MW_BIND_ERR : IBV_WC_SUCCESS);
		rig.right.rkey = rkey + (uint32_t)i + 1;
		if (i == 2)
			break;
		send_now(&left, i, IBV_WR_RDMA_READ, 0, 100, &right, (uint32_t)i * 100);
		run(&rig);
		expect(&rig.left, i, IBV_WC_SUCCESS);
	}
	state_is(&right, IBV_QPS_ERR);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(xrc_messages_go_to_the_queue_they_name)
{
	struct rig rig;
	struct party other;
	struct end initiator, target;
	struct rnic_ring *ring = ring_new(8, rnic_stride(sizeof(struct rnic_receive), 2, 0));
	struct rnic_srq_init init = { .type = IBV_SRQT_XRC, .max_wr = 8, .max_sge = 2, .ring = ring };
	struct rnic_qp_init target_init = { .type = IBV_QPT_XRC_RECV, .pd = RNIC_NONE, .send_cq = RNIC_NONE,
					    .recv_cq = RNIC_NONE, .srq = RNIC_NONE };
	uint32_t srq, srqn, again, other_xrcd;

	rig_up(&rig);
	party_open(&other, rig.right.device);
	/* The queue is one process's, the target another's; the domain is both's. */
	SAME(rnic_open_xrcd(rig.right.context, 4711, 0, &target_init.xrcd), EAGAIN);
	SAME(rnic_open_xrcd(rig.right.context, 4711, O_CREAT | O_EXCL, &target_init.xrcd), 0);
	SAME(rnic_open_xrcd(other.context, 4711, O_CREAT, &other_xrcd), 0);
	init.pd = other.pd;
	init.xrcd = other_xrcd;
	init.cq = other.cq;
	SAME(rnic_create_srq(other.context, &init, &srq, &srqn), 0);
	target = (struct end){ .party = &rig.right, .type = IBV_QPT_XRC_RECV, .mtu = IBV_MTU_1024, .gid_index = 1 };
	SAME(rnic_create_qp(rig.right.context, &target_init, &target.qp, &target.qpn), 0);
	end_new(&initiator, &rig.left, IBV_QPT_XRC_SEND, RNIC_NONE);
	connect_ends(&initiator, &target);
	ring_receive(ring, &other, 9, 0, 100);
	request(&initiator, 1, IBV_WR_SEND, 0, 10)->xrc_srqn = srqn;
	memcpy(rig.left.memory, "to another", 10);
	post(&initiator);
	run(&rig);
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	struct rnic_completion got = expect(&other, 9, IBV_WC_SUCCESS);
	SAME(got.qpn, target.qpn);
	SAME(got.srqn, srqn);
	CHECK(!memcmp(other.memory, "to another", 10));
	/* The target lives as long as one of those who opened it. */
	SAME(rnic_open_qp(other.context, other_xrcd, target.qpn, 1, &again), 0);
	rnic_close(rig.right.context);
	rig.right.context = NULL;
	struct rnic_send *wr = request(&initiator, 2, IBV_WR_RDMA_WRITE, 0, 10);
	wr->xrc_srqn = srqn;
	wr->rdma.address = (uintptr_t)other.memory + 50;
	wr->rdma.rkey = other.rkey;
	post(&initiator);
	run(&rig);
	expect(&rig.left, 2, IBV_WC_SUCCESS);
	CHECK(!memcmp(other.memory + 50, "to another", 10));
	request(&initiator, 3, IBV_WR_SEND, 0, 10)->xrc_srqn = srqn + 1;
	post(&initiator);
	run(&rig);
	expect(&rig.left, 3, IBV_WC_REM_INV_REQ_ERR);
	expect_event(&other, IBV_EVENT_QP_REQ_ERR);
	end_destroy(&initiator);
	rnic_close(other.context);
	free(other.memory);
	free(other.cq_ring);
	SAME(rnic_count(rig.right.device, "qps"), 0);
	rig_down(&rig);
	free(ring);
}

CASE(an_xrc_queue_that_ends_in_the_middle_of_its_message_ends_the_connection)
{
	struct rig rig;
	struct party other;
	struct end initiator, target;
	struct rnic_ring *ring = ring_new(8, rnic_stride(sizeof(struct rnic_receive), 2, 0));
	struct rnic_srq_init init = { .type = IBV_SRQT_XRC, .max_wr = 8, .max_sge = 2, .ring = ring };
	struct rnic_qp_init target_init = { .type = IBV_QPT_XRC_RECV, .pd = RNIC_NONE, .send_cq = RNIC_NONE,
					    .recv_cq = RNIC_NONE, .srq = RNIC_NONE };
	uint32_t srq, srqn;

	rig_up(&rig);
	party_open(&other, rig.right.device);
	SAME(rnic_set(rig.left.device, "bandwidth", 1000000000), 0);
	SAME(rnic_open_xrcd(rig.right.context, 4711, O_CREAT, &target_init.xrcd), 0);
	SAME(rnic_open_xrcd(other.context, 4711, O_CREAT, &init.xrcd), 0);
	init.pd = other.pd;
	init.cq = other.cq;
	SAME(rnic_create_srq(other.context, &init, &srq, &srqn), 0);
	target = (struct end){ .party = &rig.right, .type = IBV_QPT_XRC_RECV, .mtu = IBV_MTU_1024, .gid_index = 1 };
	SAME(rnic_create_qp(rig.right.context, &target_init, &target.qp, &target.qpn), 0);
	end_new(&initiator, &rig.left, IBV_QPT_XRC_SEND, RNIC_NONE);
	connect_ends(&initiator, &target);
	ring_receive(ring, &other, 9, 0, MEMORY);
	request(&initiator, 1, IBV_WR_SEND, 0, 1000000)->xrc_srqn = srqn;
	post(&initiator);
	run_for(&rig, 500000);
	rnic_close(other.context);
	run_for(&rig, 1000000);
	expect(&rig.left, 1, IBV_WC_REM_INV_REQ_ERR);
	state_is(&target, IBV_QPS_ERR);
	SAME(rnic_destroy_qp(rig.right.context, target.qp), 0);
	end_destroy(&initiator);
	free(other.memory);
	free(other.cq_ring);
	rig_down(&rig);
	free(ring);
}

CASE(freed_numbers_come_back_and_hosts_have_different_ones)
{
	struct rig rig;
	struct end one, two;
	uint32_t mr, lkey, rkey, again_lkey, again_rkey;

	rig_up(&rig);
	CHECK(rig.left.lkey != rig.right.lkey && rig.left.lkey != rig.left.rkey);
	SAME(rnic_reg_mr(rig.left.context, rig.left.pd, (uintptr_t)rig.left.memory, 8, 0, 0, &mr, &lkey, &rkey), 0);
	SAME(rnic_dereg_mr(rig.left.context, mr), 0);
	SAME(rnic_reg_mr(rig.left.context, rig.left.pd, (uintptr_t)rig.left.memory, 8, 0, 0, &mr, &again_lkey, &again_rkey), 0);
	SAME(lkey, again_lkey);
	SAME(rkey, again_rkey);
	SAME(rnic_set(rig.left.device, "reuse_numbers", 0), 0);
	SAME(rnic_dereg_mr(rig.left.context, mr), 0);
	SAME(rnic_reg_mr(rig.left.context, rig.left.pd, (uintptr_t)rig.left.memory, 8, 0, 0, &mr, &again_lkey, &again_rkey), 0);
	CHECK(lkey != again_lkey);
	rnic_numbers(rig.left.device, 4000, 0x123400);
	end_new(&one, &rig.left, IBV_QPT_RC, RNIC_NONE);
	SAME(one.qpn, 4000);
	rnic_numbers(rig.left.device, 4000, 0);
	end_new(&two, &rig.left, IBV_QPT_RC, RNIC_NONE);
	SAME(two.qpn, 4001);
	SAME(rnic_reg_mr(rig.left.context, rig.left.pd, (uintptr_t)rig.left.memory, 8, 0, 0, &mr, &lkey, &rkey), 0);
	SAME(lkey, 0x123400);
	end_destroy(&one);
	end_destroy(&two);
	rig_down(&rig);
}

CASE(limits_hold)
{
	struct rig rig;
	uint32_t handle, key;
	struct ibv_qp_cap cap = { .max_send_wr = 101 };
	uint32_t sq, rq;
	struct rnic_srq_init init = { .type = IBV_SRQT_BASIC, .max_wr = 1 };

	rig_up(&rig);
	SAME(rnic_set(rig.left.device, "max_mr", 2), 0);
	SAME(rnic_set(rig.left.device, "max_qp_wr", 100), 0);
	SAME(rnic_set(rig.left.device, "max_srq", 0), 0);
	SAME(rnic_set(rig.left.device, "max_everything", 0), ENOENT);
	SAME(rnic_reg_mr(rig.left.context, rig.left.pd, 0, 8, 0, 0, &handle, &key, &key), 0);
	SAME(rnic_reg_mr(rig.left.context, rig.left.pd, 0, 8, 0, 0, &handle, &key, &key), ENOMEM);
	SAME(rnic_reg_mr(rig.right.context, rig.right.pd, 0, 8, 0, IBV_ACCESS_REMOTE_WRITE, &handle, &key, &key), EINVAL);
	SAME(rnic_qp_caps(rig.left.device, IBV_QPT_RC, &cap, &sq, &rq), EINVAL);
	SAME(rnic_create_srq(rig.left.context, &init, &handle, &key), EOPNOTSUPP);
	SAME(rnic_dealloc_pd(rig.left.context, rig.left.pd), EBUSY);
	SAME(rnic_dealloc_pd(rig.left.context, 99), EINVAL);
	SAME(rnic_set(rig.left.device, "max_pd", 2), 0);
	SAME(rnic_alloc_pd(rig.left.context, &handle), 0);
	SAME(rnic_alloc_pd(rig.left.context, &key), ENOMEM);
	SAME(rnic_dealloc_pd(rig.left.context, handle), 0);
	SAME(rnic_alloc_pd(rig.left.context, &handle), 0);
	rig_down(&rig);
}

CASE(a_call_fails_on_request_the_nth_time)
{
	struct rig rig;
	uint64_t delay;

	rig_up(&rig);
	SAME(rnic_fault(rig.left.device, "reg_mr", 2, ENOMEM, 0), 0);
	SAME(rnic_fault(rig.left.device, "modify_qp", 0, 0, RNIC_NEVER), 0);
	SAME(rnic_verdict(rig.left.device, "reg_mr", &delay), 0);
	SAME(rnic_verdict(rig.left.device, "create_qp", &delay), 0);
	SAME(rnic_verdict(rig.left.device, "reg_mr", &delay), ENOMEM);
	SAME(rnic_verdict(rig.left.device, "reg_mr", &delay), 0);
	for (int i = 0; i < 3; i++) {
		SAME(rnic_verdict(rig.left.device, "modify_qp", &delay), 0);
		SAME(delay, RNIC_NEVER);
	}
	SAME(rnic_fault(rig.left.device, "modify_qp", 0, 0, 0), 0);
	SAME(rnic_verdict(rig.left.device, "modify_qp", &delay), 0);
	SAME(delay, 0);
	rig_down(&rig);
}

CASE(planted_faults_show_as_what_they_are)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	/* A completion that is dropped. */
	SAME(rnic_set(rig.left.device, "drop_completion", 1), 0);
	send_now(&left, 1, IBV_WR_RDMA_WRITE, 0, 8, &right, 0);
	send_now(&left, 2, IBV_WR_RDMA_WRITE, 0, 8, &right, 0);
	run(&rig);
	expect(&rig.left, 2, IBV_WC_SUCCESS);
	/* A send that arrives twice. */
	SAME(rnic_set(rig.right.device, "repeat_send", 1), 0);
	receive(&right, 10, 0, 8);
	receive(&right, 11, 0, 8);
	receive(&right, 12, 0, 8);
	send_now(&left, 3, IBV_WR_SEND, 0, 8, &right, 0);
	send_now(&left, 4, IBV_WR_SEND, 0, 8, &right, 0);
	run(&rig);
	expect(&rig.left, 3, IBV_WC_SUCCESS);
	expect(&rig.left, 4, IBV_WC_SUCCESS);
	for (uint64_t i = 10; i < 13; i++)
		expect(&rig.right, i, IBV_WC_SUCCESS);
	/* A byte that is flipped. */
	SAME(rnic_set(rig.left.device, "flip_byte", 1), 0);
	send_now(&left, 5, IBV_WR_RDMA_WRITE, 0, 8, &right, 64);
	run(&rig);
	expect(&rig.left, 5, IBV_WC_SUCCESS);
	CHECK(memcmp(rig.left.memory, rig.right.memory + 64, 8));
	/* A receive that is lost. */
	SAME(rnic_set(rig.right.device, "lose_receive", 1), 0);
	receive(&right, 20, 0, 8);
	receive(&right, 21, 0, 8);
	send_now(&left, 6, IBV_WR_SEND, 0, 8, &right, 0);
	run(&rig);
	expect(&rig.left, 6, IBV_WC_SUCCESS);
	expect(&rig.right, 21, IBV_WC_SUCCESS);
	expect_none(&rig.right);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(a_device_that_mixes_keys_up_writes_into_another_process)
{
	struct rig rig;
	struct end left, right;
	struct party other;

	rc_pair(&rig, &left, &right);
	party_open(&other, rig.right.device);
	SAME(rnic_set(rig.right.device, "foreign_key", 1), 0);
	memset(rig.left.memory, 8, 8);
	send_now(&left, 1, IBV_WR_RDMA_WRITE, 0, 8, &right, 0);
	run(&rig);
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	SAME(rig.right.memory[0], 0);
	SAME(other.memory[0], 8);
	rnic_close(other.context);
	free(other.memory);
	free(other.cq_ring);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(events_are_raised_on_request)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	SAME(rnic_raise(rig.left.device, IBV_EVENT_QP_FATAL, left.qpn), 0);
	expect_event(&rig.left, IBV_EVENT_QP_FATAL);
	SAME(rnic_raise(rig.left.device, IBV_EVENT_CQ_ERR, left.qpn), 0);
	expect_event(&rig.left, IBV_EVENT_CQ_ERR);
	SAME(rnic_raise(rig.left.device, IBV_EVENT_QP_FATAL, left.qpn + 1000), ENOENT);
	SAME(rnic_raise(rig.left.device, IBV_EVENT_DEVICE_FATAL, 0), 0);
	expect_event(&rig.left, IBV_EVENT_DEVICE_FATAL);
	rnic_port(rig.left.device, false);
	expect_event(&rig.left, IBV_EVENT_PORT_ERR);
	send_now(&left, 1, IBV_WR_RDMA_WRITE, 0, 8, &right, 0);
	run_for(&rig, 1000000);
	expect_none(&rig.left);
	rnic_port(rig.left.device, true);
	expect_event(&rig.left, IBV_EVENT_PORT_ACTIVE);
	run_for(&rig, 5000000);
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	SAME(rig.right.event_count, 0);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

/* A pair of a thousand; every message finds its way by its number alone. */
CASE(thousands_of_queue_pairs_and_regions_work_side_by_side)
{
	enum { PAIRS = 2000 };
	struct rig rig;
	struct end *left = calloc(PAIRS, sizeof(*left)), *right = calloc(PAIRS, sizeof(*right));

	rig_up(&rig);
	for (int i = 0; i < PAIRS; i++) {
		uint32_t mr, lkey, rkey;

		end_new(&left[i], &rig.left, IBV_QPT_RC, RNIC_NONE);
		end_new(&right[i], &rig.right, IBV_QPT_RC, RNIC_NONE);
		connect_ends(&left[i], &right[i]);
		SAME(rnic_reg_mr(rig.right.context, rig.right.pd, (uintptr_t)rig.right.memory + (unsigned)i * 8, 8, (unsigned)i * 8,
				 WRITABLE_BY_ALL, &mr, &lkey, &rkey),
		     0);
		struct rnic_send *wr = request(&left[i], (uint64_t)i, IBV_WR_RDMA_WRITE, (uint32_t)i * 8, 8);
		wr->rdma.address = (unsigned)i * 8;
		wr->rdma.rkey = rkey;
		memcpy(rig.left.memory + i * 8, &i, sizeof(i));
		post(&left[i]);
		if (i % 50 == 49) {
			run(&rig);
			for (int j = i - 49; j <= i; j++)
				expect(&rig.left, (uint64_t)j, IBV_WC_SUCCESS);
		}
	}
	CHECK(!memcmp(rig.left.memory, rig.right.memory, PAIRS * 8));
	for (int i = 0; i < PAIRS; i++) {
		end_destroy(&left[i]);
		end_destroy(&right[i]);
	}
	free(left);
	free(right);
	rig_down(&rig);
}
