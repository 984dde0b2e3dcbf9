/* Data from one end to the other. */
#include <stdio.h>
#include <string.h>

#include "conformance.h"

static void transfer(struct bench *bench, enum ibv_qp_type type, enum ibv_wr_opcode opcode, uint32_t length)
{
	struct options options = usual();
	struct pair pair;
	bool read = opcode == IBV_WR_RDMA_READ;

	options.type = type;
	pair = pair_new(bench, options);
	for (uint32_t i = 0; i < length; i++)
		bench->memory[(read ? 400000u : 0u) + i] = (unsigned char)(i * 31 + 7);
	must(!receive(bench, pair.other, 700000, 300000), "a receive");
	say_error("post", post(bench, pair.one, opcode, 0, length, 400000));
	say_next(bench, bench->send_cq, "send");
	if (opcode == IBV_WR_SEND || opcode == IBV_WR_SEND_WITH_IMM || opcode == IBV_WR_RDMA_WRITE_WITH_IMM)
		say_next(bench, bench->recv_cq, "receive");
	else
		say("receive=%s", quiet(bench->recv_cq) ? "untouched" : "taken");
	uint32_t place = opcode == IBV_WR_SEND || opcode == IBV_WR_SEND_WITH_IMM ? 700000 : 400000;
	say("data=%s", memcmp(bench->memory, bench->memory + place, length) ? "other" : "same");
	say_state("state", pair.one);
	pair_end(&pair);
}

CASE(rc_send) { transfer(bench, IBV_QPT_RC, IBV_WR_SEND, 1000); }
CASE(rc_send_long) { transfer(bench, IBV_QPT_RC, IBV_WR_SEND, 250001); }
CASE(rc_send_with_immediate) { transfer(bench, IBV_QPT_RC, IBV_WR_SEND_WITH_IMM, 1); }
CASE(rc_send_of_nothing) { transfer(bench, IBV_QPT_RC, IBV_WR_SEND, 0); }
CASE(rc_write) { transfer(bench, IBV_QPT_RC, IBV_WR_RDMA_WRITE, 1000); }
CASE(rc_write_long) { transfer(bench, IBV_QPT_RC, IBV_WR_RDMA_WRITE, 250001); }
CASE(rc_write_with_immediate) { transfer(bench, IBV_QPT_RC, IBV_WR_RDMA_WRITE_WITH_IMM, 1000); }
CASE(rc_write_of_nothing) { transfer(bench, IBV_QPT_RC, IBV_WR_RDMA_WRITE, 0); }
CASE(rc_read) { transfer(bench, IBV_QPT_RC, IBV_WR_RDMA_READ, 1000); }
CASE(rc_read_long) { transfer(bench, IBV_QPT_RC, IBV_WR_RDMA_READ, 250001); }
CASE(uc_send) { transfer(bench, IBV_QPT_UC, IBV_WR_SEND, 1000); }
CASE(uc_write) { transfer(bench, IBV_QPT_UC, IBV_WR_RDMA_WRITE, 70000); }
CASE(uc_write_with_immediate) { transfer(bench, IBV_QPT_UC, IBV_WR_RDMA_WRITE_WITH_IMM, 1000); }

static void atomic(struct bench *bench, enum ibv_wr_opcode opcode, uint64_t before, uint32_t remote)
{
	struct pair pair = pair_new(bench, usual());

	memcpy(bench->memory + 8192, &before, 8);
	say_error("post", post(bench, pair.one, opcode, 64, 8, remote));
	say_next(bench, bench->send_cq, "send");
	uint64_t result, after;
	memcpy(&result, bench->memory + 64, 8);
	memcpy(&after, bench->memory + 8192, 8);
	say("result=%llu memory=%llu", (unsigned long long)result, (unsigned long long)after);
	say_state("state", pair.one);
	pair_end(&pair);
}

CASE(atomic_add) { atomic(bench, IBV_WR_ATOMIC_FETCH_AND_ADD, 30, 8192); }
CASE(atomic_swap_equal) { atomic(bench, IBV_WR_ATOMIC_CMP_AND_SWP, 5, 8192); }
CASE(atomic_swap_unequal) { atomic(bench, IBV_WR_ATOMIC_CMP_AND_SWP, 6, 8192); }

CASE(inline_data_may_change_after_the_call)
{
	struct pair pair = pair_new(bench, usual());
	struct ibv_sge one = sge(bench, 0, 32);
	struct ibv_send_wr wr = { .sg_list = &one, .num_sge = 1, .opcode = IBV_WR_SEND,
				  .send_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE };

	memset(bench->memory, 3, 32);
	one.lkey = 0xdead; /* not looked at */
	must(!receive(bench, pair.other, 4096, 100), "a receive");
	say_error("post", post_wr(pair.one, &wr));
	memset(bench->memory, 4, 32);
	say_next(bench, bench->send_cq, "send");
	say_next(bench, bench->recv_cq, "receive");
	say("data=%u", bench->memory[4096]);
	pair_end(&pair);
}

CASE(gather_and_scatter)
{
	struct pair pair = pair_new(bench, usual());
	struct ibv_sge from[3] = { sge(bench, 0, 3), sge(bench, 100, 5), sge(bench, 200, 2) };
	struct ibv_sge into[2] = { sge(bench, 4096, 4), sge(bench, 5000, 20) };
	struct ibv_send_wr wr = { .sg_list = from, .num_sge = 3, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED };
	struct ibv_recv_wr receive_wr = { .sg_list = into, .num_sge = 2 }, *bad;

	memcpy(bench->memory, "abc", 3);
	memcpy(bench->memory + 100, "defgh", 5);
	memcpy(bench->memory + 200, "ij", 2);
	must(!ibv_post_recv(pair.other, &receive_wr, &bad), "a receive");
	say_error("post", post_wr(pair.one, &wr));
	say_next(bench, bench->send_cq, "send");
	say_next(bench, bench->recv_cq, "receive");
	say("data=%.4s+%.6s", (char *)bench->memory + 4096, (char *)bench->memory + 5000);
	pair_end(&pair);
}

CASE(unsignalled_sends_say_nothing)
{
	struct pair pair = pair_new(bench, usual());
	struct ibv_sge one = sge(bench, 0, 8);
	struct ibv_send_wr wr = { .sg_list = &one, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE,
				  .wr.rdma = { (uintptr_t)bench->memory + 4096, bench->mr->rkey } };

	for (int i = 0; i < 8; i++)
		must(!post_wr(pair.one, &wr), "an unsignalled write");
	say_error("post", post(bench, pair.one, IBV_WR_RDMA_WRITE, 0, 8, 4096));
	say_next(bench, bench->send_cq, "send");
	say("then=%s", quiet(bench->send_cq) ? "nothing" : "more");
	pair_end(&pair);
}

CASE(fenced_send_after_read)
{
	struct pair pair = pair_new(bench, usual());
	struct ibv_sge one = sge(bench, 0, 8);
	struct ibv_send_wr wr = { .sg_list = &one, .num_sge = 1, .opcode = IBV_WR_SEND,
				  .send_flags = IBV_SEND_SIGNALED | IBV_SEND_FENCE };

	memset(bench->memory + 8192, 6, 8);
	must(!receive(bench, pair.other, 4096, 8), "a receive");
	must(!post(bench, pair.one, IBV_WR_RDMA_READ, 0, 8, 8192), "a read");
	say_error("post", post_wr(pair.one, &wr));
	say_next(bench, bench->send_cq, "first");
	say_next(bench, bench->send_cq, "second");
	say_next(bench, bench->recv_cq, "receive");
	say("data=%u", bench->memory[4096]);
	pair_end(&pair);
}
