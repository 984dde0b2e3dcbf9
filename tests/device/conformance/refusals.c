/* What a device refuses, how it says so, and what state that leaves. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "conformance.h"

static void write_refused(struct bench *bench, unsigned int qp_rights, unsigned int mr_rights, uint32_t length, uint32_t change)
{
	struct options options = usual();
	struct ibv_mr *mr = ibv_reg_mr(bench->pd, bench->memory + 8192, 4096, (int)mr_rights);
	struct ibv_sge one = sge(bench, 0, length);
	struct ibv_send_wr wr = { .sg_list = &one, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED };
	struct pair pair;

	must(mr, "a region");
	options.rights = qp_rights;
	pair = pair_new(bench, options);
	wr.wr.rdma.remote_addr = (uintptr_t)bench->memory + 8192;
	wr.wr.rdma.rkey = mr->rkey + change;
	must(!receive(bench, pair.other, 100000, 100), "a receive");
	must(!post_wr(pair.one, &wr), "the write");
	must(!post(bench, pair.one, IBV_WR_RDMA_WRITE, 0, 8, 4096), "a second write");
	say_next(bench, bench->send_cq, "first");
	say_next(bench, bench->send_cq, "second");
	say_next(bench, bench->recv_cq, "receive");
	say_state("requester", pair.one);
	say_state("responder", pair.other);
	pair_end(&pair);
	must(!ibv_dereg_mr(mr), "ending the region");
}

#define WRITABLE (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE)

CASE(write_to_a_region_without_the_right) { write_refused(bench, REMOTE_RIGHTS, IBV_ACCESS_LOCAL_WRITE, 8, 0); }
CASE(write_to_a_qp_without_the_right) { write_refused(bench, 0, WRITABLE, 8, 0); }
CASE(write_beyond_the_region) { write_refused(bench, REMOTE_RIGHTS, WRITABLE, 4097, 0); }
CASE(write_with_a_key_of_nothing) { write_refused(bench, REMOTE_RIGHTS, WRITABLE, 8, 0x77000); }

static void read_refused(struct bench *bench, enum ibv_wr_opcode opcode, unsigned int qp_rights, uint32_t remote)
{
	struct options options = usual();
	struct pair pair;

	options.rights = qp_rights;
	pair = pair_new(bench, options);
	say_error("post", post(bench, pair.one, opcode, 0, 8, remote));
	say_next(bench, bench->send_cq, "send");
	say_state("requester", pair.one);
	say_state("responder", pair.other);
	pair_end(&pair);
}

CASE(read_from_a_qp_without_the_right) { read_refused(bench, IBV_WR_RDMA_READ, IBV_ACCESS_REMOTE_WRITE, 4096); }
CASE(read_beyond_the_region) { read_refused(bench, IBV_WR_RDMA_READ, REMOTE_RIGHTS, MEMORY - 4); }
CASE(atomic_to_a_qp_without_the_right) { read_refused(bench, IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_ACCESS_REMOTE_WRITE, 4096); }
CASE(atomic_off_its_alignment) { read_refused(bench, IBV_WR_ATOMIC_FETCH_AND_ADD, REMOTE_RIGHTS, 4097); }

CASE(send_from_a_key_of_nothing)
{
	struct pair pair = pair_new(bench, usual());
	struct ibv_sge one = sge(bench, 0, 8);
	struct ibv_send_wr wr = { .sg_list = &one, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED };

	one.lkey += 0x77000;
	must(!receive(bench, pair.other, 4096, 100), "a receive");
	must(!post_wr(pair.one, &wr), "the send");
	must(!post(bench, pair.one, IBV_WR_SEND, 0, 8, 0), "a second send");
	say_next(bench, bench->send_cq, "first");
	say_next(bench, bench->send_cq, "second");
	say_state("requester", pair.one);
	say_state("responder", pair.other);
	pair_end(&pair);
}

CASE(receive_into_a_key_of_nothing)
{
	struct pair pair = pair_new(bench, usual());
	struct ibv_sge one = sge(bench, 4096, 8);
	struct ibv_recv_wr wr = { .sg_list = &one, .num_sge = 1 }, *bad;

	one.lkey += 0x77000;
	must(!ibv_post_recv(pair.other, &wr, &bad), "a receive");
	must(!post(bench, pair.one, IBV_WR_SEND, 0, 8, 0), "the send");
	say_next(bench, bench->send_cq, "send");
	say_next(bench, bench->recv_cq, "receive");
	say_state("requester", pair.one);
	say_state("responder", pair.other);
	pair_end(&pair);
}

CASE(send_longer_than_its_receive)
{
	struct pair pair = pair_new(bench, usual());

	must(!receive(bench, pair.other, 4096, 100), "a receive");
	must(!receive(bench, pair.other, 4096, 100), "a second receive");
	must(!post(bench, pair.one, IBV_WR_SEND, 0, 101, 0), "the send");
	say_next(bench, bench->send_cq, "send");
	say_next(bench, bench->recv_cq, "first receive");
	say_next(bench, bench->recv_cq, "second receive");
	say_state("requester", pair.one);
	say_state("responder", pair.other);
	pair_end(&pair);
}

CASE(no_receive_within_the_retries)
{
	struct options options = usual();
	struct pair pair;

	options.rnr_retry = 2;
	pair = pair_new(bench, options);
	must(!post(bench, pair.one, IBV_WR_SEND, 0, 8, 0), "the send");
	say_next(bench, bench->send_cq, "send");
	say_state("requester", pair.one);
	say_state("responder", pair.other);
	pair_end(&pair);
}

CASE(a_receive_that_comes_late)
{
	struct pair pair = pair_new(bench, usual());

	must(!post(bench, pair.one, IBV_WR_SEND, 0, 8, 0), "the send");
	say("before=%s", quiet(bench->send_cq) ? "nothing" : "something");
	must(!receive(bench, pair.other, 4096, 100), "a receive");
	say_next(bench, bench->send_cq, "send");
	say_next(bench, bench->recv_cq, "receive");
	pair_end(&pair);
}

CASE(nobody_answers)
{
	struct options options = usual();
	struct pair pair = pair_new(bench, options);

	options.retry_cnt = 1;
	must(!to(pair.other, IBV_QPS_RESET), "RESET");
	must(!post(bench, pair.one, IBV_WR_RDMA_WRITE, 0, 8, 4096), "the write");
	must(!post(bench, pair.one, IBV_WR_RDMA_WRITE, 0, 8, 4096), "a second write");
	say_next(bench, bench->send_cq, "first");
	say_next(bench, bench->send_cq, "second");
	say_state("requester", pair.one);
	pair_end(&pair);
}

CASE(uc_read_is_no_operation)
{
	struct options options = usual();
	struct pair pair;

	options.type = IBV_QPT_UC;
	pair = pair_new(bench, options);
	int error = post(bench, pair.one, IBV_WR_RDMA_READ, 0, 8, 4096);
	say_error("post", error);
	if (!error)
		say_next(bench, bench->send_cq, "send");
	pair_end(&pair);
}

CASE(uc_without_a_receive_loses_the_message)
{
	struct options options = usual();
	struct pair pair;

	options.type = IBV_QPT_UC;
	pair = pair_new(bench, options);
	must(!post(bench, pair.one, IBV_WR_SEND, 0, 8, 0), "the send");
	say_next(bench, bench->send_cq, "lost");
	must(!receive(bench, pair.other, 4096, 100), "a receive");
	must(!post(bench, pair.one, IBV_WR_SEND, 0, 9, 0), "a second send");
	say_next(bench, bench->send_cq, "second");
	say_next(bench, bench->recv_cq, "receive");
	pair_end(&pair);
}

CASE(requests_that_do_not_fit)
{
	struct options options = usual();
	struct ibv_qp *qp = qp_new(bench, options);
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;
	struct ibv_sge many[64];
	struct ibv_send_wr wr = { .sg_list = many, .opcode = IBV_WR_SEND };
	struct ibv_recv_wr receive_wr = { .sg_list = many }, *bad;

	must(!ibv_query_qp(qp, &attr, IBV_QP_CAP, &init), "what was granted");
	for (int i = 0; i < 64; i++)
		many[i] = sge(bench, 0, 64);
	must(!to_init(qp, options) && !to_rtr(bench, qp, qp->qp_num) && !to_rts(qp, options), "RTS");
	wr.num_sge = (int)attr.cap.max_send_sge + 1;
	say_error("send of too many elements", post_wr(qp, &wr));
	receive_wr.num_sge = (int)attr.cap.max_recv_sge + 1;
	say_error("receive of too many elements", ibv_post_recv(qp, &receive_wr, &bad));
	many[0].length = attr.cap.max_inline_data + 1;
	wr.num_sge = 1;
	wr.send_flags = IBV_SEND_INLINE;
	say_error("inline too long", post_wr(qp, &wr));
	int error = 0;
	for (uint32_t i = 0; i <= 1000 && !error; i++)
		error = receive(bench, qp, 0, 8);
	say_error("receives without end", error);
	must(!ibv_destroy_qp(qp), "ending the queue pair");
}

CASE(a_send_queue_is_full_when_its_depth_is_reached)
{
	struct options options = usual();
	struct pair pair = pair_new(bench, options);
	int error = 0;

	/* Nothing completes: there is no receive. */
	for (uint32_t i = 0; i <= 1000 && !error; i++)
		error = post(bench, pair.one, IBV_WR_SEND, 0, 8, 0);
	say_error("sends without end", error);
	must(!to(pair.one, IBV_QPS_ERR), "ERR");
	say_next(bench, bench->send_cq, "first");
	pair_end(&pair);
}
