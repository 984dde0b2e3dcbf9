/* RC and UC: data, order, rights, errors. */
#include "rig.h"

#include <errno.h>

CASE(a_send_arrives_in_the_posted_receive)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	receive(&right, 7, 4096, 100);
	memcpy(rig.left.memory, "over the wire", 14);
	request(&left, 1, IBV_WR_SEND_WITH_IMM, 0, 14)->imm = 0xabcd;
	post(&left);
	run(&rig);
	struct rnic_completion got = expect(&rig.right, 7, IBV_WC_SUCCESS);
	SAME(got.bytes, 14);
	SAME(got.imm, 0xabcd);
	SAME(got.flags, IBV_WC_WITH_IMM);
	SAME(got.qpn, right.qpn);
	SAME(got.source_qpn, left.qpn);
	CHECK(!memcmp(rig.right.memory + 4096, "over the wire", 14));
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	SAME(left.sq->consumed, 1);
	SAME(right.rq->consumed, 1);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(a_message_of_many_pieces_is_whole)
{
	struct rig rig;
	struct end left, right;
	const uint32_t size = 1000003;

	rc_pair(&rig, &left, &right);
	for (uint32_t i = 0; i < size; i++)
		rig.left.memory[i] = (unsigned char)(i * 7 + i / 251);
	send_now(&left, 1, IBV_WR_RDMA_WRITE, 0, size, &right, 13);
	receive(&right, 2, 2000000, size + 5);
	send_now(&left, 3, IBV_WR_SEND, 0, size, &right, 0);
	run(&rig);
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	expect(&rig.left, 3, IBV_WC_SUCCESS);
	SAME(expect(&rig.right, 2, IBV_WC_SUCCESS).bytes, size);
	CHECK(!memcmp(rig.right.memory + 13, rig.left.memory, size));
	CHECK(!memcmp(rig.right.memory + 2000000, rig.left.memory, size));
	send_now(&left, 4, IBV_WR_RDMA_READ, 2500000, size, &right, 13);
	run(&rig);
	SAME(expect(&rig.left, 4, IBV_WC_SUCCESS).bytes, size);
	CHECK(!memcmp(rig.left.memory + 2500000, rig.left.memory, size));
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(scattered_elements_are_put_together_in_their_order)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	memcpy(rig.left.memory, "abcdefghij", 10);
	struct rnic_receive *into = rnic_ring_free(right.rq, 0);
	*into = (struct rnic_receive){ .wr_id = 5, .num_sge = 3 };
	into->sges[0] = (struct rnic_sge){ (uintptr_t)rig.right.memory, 3, rig.right.lkey };
	into->sges[1] = (struct rnic_sge){ (uintptr_t)rig.right.memory + 100, 0, rig.right.lkey };
	into->sges[2] = (struct rnic_sge){ (uintptr_t)rig.right.memory + 200, 50, rig.right.lkey };
	rnic_ring_give(right.rq, 1);
	struct rnic_send *wr = request(&left, 1, IBV_WR_SEND, 0, 4);
	wr->num_sge = 2;
	wr->sges[1] = (struct rnic_sge){ (uintptr_t)rig.left.memory + 6, 4, rig.left.lkey };
	post(&left);
	run(&rig);
	SAME(expect(&rig.right, 5, IBV_WC_SUCCESS).bytes, 8);
	CHECK(!memcmp(rig.right.memory, "abc", 3) && !memcmp(rig.right.memory + 200, "dghij", 5));
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(inline_data_is_sent_as_it_was_when_posted)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	struct rnic_send *wr = request(&left, 1, IBV_WR_RDMA_WRITE, 0, 0);
	wr->flags |= IBV_SEND_INLINE;
	wr->bytes = 5;
	memcpy(wr->sges, "inner", 5);
	wr->rdma.address = (uintptr_t)rig.right.memory;
	wr->rdma.rkey = rig.right.rkey;
	post(&left);
	run(&rig);
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	CHECK(!memcmp(rig.right.memory, "inner", 5));
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(unsignalled_requests_complete_silently_and_free_their_slots)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	for (int i = 0; i < 40; i++) {
		struct rnic_send *wr = request(&left, (uint64_t)i, IBV_WR_RDMA_WRITE, 0, 8);

		wr->flags = i % 10 == 9 ? IBV_SEND_SIGNALED : 0;
		wr->rdma.address = (uintptr_t)rig.right.memory;
		wr->rdma.rkey = rig.right.rkey;
		post(&left);
		run(&rig);
	}
	for (uint64_t i = 9; i < 40; i += 10)
		expect(&rig.left, i, IBV_WC_SUCCESS);
	expect_none(&rig.left);
	SAME(left.sq->consumed, 40);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(atomics_return_what_was_there_and_compare)
{
	struct rig rig;
	struct end left, right;
	uint64_t *word;

	rc_pair(&rig, &left, &right);
	word = (uint64_t *)(void *)(rig.right.memory + 64);
	*word = 40;
	for (int i = 0; i < 3; i++) {
		struct rnic_send *wr = request(&left, (uint64_t)i, i == 0 ? IBV_WR_ATOMIC_FETCH_AND_ADD : IBV_WR_ATOMIC_CMP_AND_SWP,
					       (uint32_t)i * 8, 8);

		wr->atomic.address = (uintptr_t)word;
		wr->atomic.rkey = rig.right.rkey;
		wr->atomic.compare_add = i == 0 ? 2 : 42;
		wr->atomic.swap = 99;
		post(&left);
	}
	run(&rig);
	for (uint64_t i = 0; i < 3; i++)
		expect(&rig.left, i, IBV_WC_SUCCESS);
	uint64_t *results = (uint64_t *)(void *)rig.left.memory;
	SAME(results[0], 40);
	SAME(results[1], 42);
	SAME(results[2], 99);
	SAME(*word, 99);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

/* Each way of having no right, and what both sides are told. */
static void refused(unsigned int qp_access, unsigned int mr_access, uint32_t length, uint32_t rkey_xor, enum ibv_wc_status status,
		    enum ibv_event_type event)
{
	struct rig rig;
	struct end left, right;
	uint32_t mr, lkey, rkey;

	rig_up(&rig);
	end_new(&left, &rig.left, IBV_QPT_RC, RNIC_NONE);
	end_new(&right, &rig.right, IBV_QPT_RC, RNIC_NONE);
	end_init(&left, 0);
	end_init(&right, qp_access);
	end_rtr(&left, &right);
	end_rtr(&right, &left);
	end_rts(&left, 7, 7);
	SAME(rnic_reg_mr(rig.right.context, rig.right.pd, (uintptr_t)rig.right.memory, 100, (uintptr_t)rig.right.memory, mr_access,
			 &mr, &lkey, &rkey),
	     0);
	struct rnic_send *wr = request(&left, 1, IBV_WR_RDMA_WRITE, 0, length);
	wr->rdma.address = (uintptr_t)rig.right.memory;
	wr->rdma.rkey = rkey ^ rkey_xor;
	post(&left);
	send_now(&left, 2, IBV_WR_RDMA_WRITE, 0, 8, &right, 0);
	receive(&right, 9, 0, 8);
	run(&rig);
	expect(&rig.left, 1, status);
	if (status != IBV_WC_SUCCESS) {
		expect(&rig.left, 2, IBV_WC_WR_FLUSH_ERR);
		expect(&rig.right, 9, IBV_WC_WR_FLUSH_ERR);
		state_is(&left, IBV_QPS_ERR);
		state_is(&right, IBV_QPS_ERR);
		expect_event(&rig.right, event);
	}
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

#define WRITABLE (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE)

CASE(a_write_needs_the_right_of_the_key) { refused(WRITABLE, IBV_ACCESS_LOCAL_WRITE, 8, 0, IBV_WC_REM_ACCESS_ERR, IBV_EVENT_QP_ACCESS_ERR); }
CASE(a_write_needs_the_right_of_the_qp) { refused(0, WRITABLE, 8, 0, IBV_WC_REM_INV_REQ_ERR, IBV_EVENT_QP_REQ_ERR); }
CASE(a_write_stays_inside_its_region) { refused(WRITABLE, WRITABLE, 101, 0, IBV_WC_REM_ACCESS_ERR, IBV_EVENT_QP_ACCESS_ERR); }
CASE(a_write_needs_an_existing_key) { refused(WRITABLE, WRITABLE, 8, 0x700, IBV_WC_REM_ACCESS_ERR, IBV_EVENT_QP_ACCESS_ERR); }
CASE(an_lkey_is_no_rkey) { refused(WRITABLE, WRITABLE, 8, 1, IBV_WC_REM_ACCESS_ERR, IBV_EVENT_QP_ACCESS_ERR); }
CASE(a_write_of_nothing_needs_no_key) { refused(WRITABLE, WRITABLE, 0, 0x700, IBV_WC_SUCCESS, 0); }
CASE(a_write_with_every_right_is_done) { refused(WRITABLE, WRITABLE, 100, 0, IBV_WC_SUCCESS, 0); }

CASE(a_key_of_another_protection_domain_opens_nothing)
{
	struct rig rig;
	struct end left, right;
	uint32_t pd, mr, lkey, rkey;

	rc_pair(&rig, &left, &right);
	SAME(rnic_alloc_pd(rig.right.context, &pd), 0);
	SAME(rnic_reg_mr(rig.right.context, pd, (uintptr_t)rig.right.memory, 100, (uintptr_t)rig.right.memory, WRITABLE, &mr, &lkey,
			 &rkey),
	     0);
	struct rnic_send *wr = request(&left, 1, IBV_WR_RDMA_WRITE, 0, 8);
	wr->rdma.address = (uintptr_t)rig.right.memory;
	wr->rdma.rkey = rkey;
	post(&left);
	run(&rig);
	expect(&rig.left, 1, IBV_WC_REM_ACCESS_ERR);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(a_bad_local_key_fails_behind_what_was_posted_before_it)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	send_now(&left, 1, IBV_WR_RDMA_WRITE, 0, 8, &right, 0);
	request(&left, 2, IBV_WR_RDMA_WRITE, 0, 8)->sges[0].lkey ^= 0x500;
	post(&left);
	send_now(&left, 3, IBV_WR_RDMA_WRITE, 0, 8, &right, 0);
	run(&rig);
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	expect(&rig.left, 2, IBV_WC_LOC_PROT_ERR);
	expect(&rig.left, 3, IBV_WC_WR_FLUSH_ERR);
	state_is(&left, IBV_QPS_ERR);
	state_is(&right, IBV_QPS_RTS);
	send_now(&left, 4, IBV_WR_RDMA_WRITE, 0, 8, &right, 0);
	expect(&rig.left, 4, IBV_WC_WR_FLUSH_ERR);
	SAME(left.sq->consumed, 4);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(a_message_longer_than_its_receive_ends_both_ends)
{
	struct rig rig;
	struct end left, right;

	rc_pair(&rig, &left, &right);
	receive(&right, 8, 0, 10);
	receive(&right, 9, 0, 10);
	send_now(&left, 1, IBV_WR_SEND, 0, 11, &right, 0);
	run(&rig);
	expect(&rig.right, 8, IBV_WC_LOC_LEN_ERR);
	expect(&rig.right, 9, IBV_WC_WR_FLUSH_ERR);
	expect(&rig.left, 1, IBV_WC_REM_INV_REQ_ERR);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(an_unreliable_connection_drops_what_finds_no_receive)
{
	struct rig rig;
	struct end left, right;

	rig_up(&rig);
	end_new(&left, &rig.left, IBV_QPT_UC, RNIC_NONE);
	end_new(&right, &rig.right, IBV_QPT_UC, RNIC_NONE);
	connect_ends(&left, &right);
	send_now(&left, 1, IBV_WR_SEND, 0, 200000, &right, 0);
	run(&rig);
	expect(&rig.left, 1, IBV_WC_SUCCESS);
	receive(&right, 7, 0, 300000);
	rig.left.memory[199999] = 3;
	send_now(&left, 2, IBV_WR_SEND, 0, 200000, &right, 0);
	run(&rig);
	expect(&rig.left, 2, IBV_WC_SUCCESS);
	SAME(expect(&rig.right, 7, IBV_WC_SUCCESS).bytes, 200000);
	SAME(rig.right.memory[199999], 3);
	expect_none(&rig.right);
	/* A read needs an answer. */
	send_now(&left, 3, IBV_WR_RDMA_READ, 0, 8, &right, 0);
	run(&rig);
	expect(&rig.left, 3, IBV_WC_LOC_QP_OP_ERR);
	state_is(&left, IBV_QPS_SQE);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}

CASE(losses_on_a_reliable_connection_show_nowhere)
{
	struct rig rig;
	struct end left, right;
	uint64_t *word;
	uint64_t done = 0, received = 0, posted = 0;

	rc_pair(&rig, &left, &right);
	SAME(rnic_set(rig.left.device, "loss_rc", 150000), 0);
	SAME(rnic_set(rig.right.device, "loss_rc", 150000), 0);
	SAME(rnic_set(rig.left.device, "latency", 5000), 0);
	SAME(rnic_set(rig.right.device, "latency", 5000), 0);
	word = (uint64_t *)(void *)(rig.right.memory + (3u << 20));
	for (uint64_t turn = 0; done < 300; turn++) {
		CHECK(turn < 100000);
		for (; posted < 300 && posted - done < 12; posted++) {
			struct rnic_send *wr;
			uint32_t size = (uint32_t)(posted % 3) * 70000 + 8;

			memset(rig.left.memory, (int)posted, 8);
			switch (posted % 4) {
			case 0:
				receive(&right, posted, 1u << 20, 300000);
				wr = request(&left, posted, IBV_WR_SEND, 0, size);
				break;
			case 1:
				wr = request(&left, posted, IBV_WR_ATOMIC_FETCH_AND_ADD, 2u << 20, 8);
				wr->atomic.address = (uintptr_t)word;
				wr->atomic.rkey = rig.right.rkey;
				wr->atomic.compare_add = 1;
				break;
			default:
				wr = request(&left, posted, posted % 4 == 2 ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE, 0, size);
				wr->rdma.address = (uintptr_t)rig.right.memory;
				wr->rdma.rkey = rig.right.rkey;
			}
			post(&left);
		}
		run_for(&rig, 100000);
		struct rnic_completion one;
		for (; poll_one(&rig.left, &one); done++) {
			SAME(one.status, IBV_WC_SUCCESS);
			SAME(one.wr_id, done);
		}
		for (; poll_one(&rig.right, &one); received += 4)
			SAME(one.wr_id, received);
	}
	SAME(received, 300);
	SAME(*word, 75);
	CHECK(rnic_count(rig.left.device, "retries") > 0);
	end_destroy(&left);
	end_destroy(&right);
	rig_down(&rig);
}
