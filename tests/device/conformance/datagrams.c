/* Datagrams. */
#include <stdio.h>
#include <string.h>

#include "conformance.h"

struct ends {
	struct pair pair;
	struct ibv_ah *ah;
};

static struct ends ends_new(struct bench *bench)
{
	struct options options = usual();
	struct ibv_ah_attr route = { .is_global = 1, .port_num = 1,
				     .grh = { .dgid = bench->gid, .sgid_index = (uint8_t)bench->gid_index, .hop_limit = 64 } };
	struct ends ends;

	options.type = IBV_QPT_UD;
	ends.pair = pair_new(bench, options);
	ends.ah = ibv_create_ah(bench->pd, &route);
	must(ends.ah, "an address handle");
	return ends;
}

static void ends_end(struct ends *ends)
{
	must(!ibv_destroy_ah(ends->ah), "ending the address handle");
	pair_end(&ends->pair);
}

static int datagram(struct bench *bench, struct ends *ends, uint32_t length, uint32_t qkey)
{
	struct ibv_sge one = sge(bench, 0, length);
	struct ibv_send_wr wr = { .sg_list = &one, .num_sge = 1, .opcode = IBV_WR_SEND_WITH_IMM, .send_flags = IBV_SEND_SIGNALED,
				  .wr.ud = { ends->ah, ends->pair.other->qp_num, qkey } };

	wr.imm_data = 0x55;
	return post_wr(ends->pair.one, &wr);
}

CASE(ud_send)
{
	struct ends ends = ends_new(bench);
	struct ibv_wc wc;

	memset(bench->memory, 9, 500);
	must(!receive(bench, ends.pair.other, 4096, 540), "a receive");
	say_error("post", datagram(bench, &ends, 500, 0x1234));
	say_next(bench, bench->send_cq, "send");
	if (next(bench->recv_cq, &wc)) {
		say("receive=%s %u bytes grh=%d source=%s imm=%x", status_name((int)wc.status), wc.byte_len,
		    !!(wc.wc_flags & IBV_WC_GRH), wc.src_qp == ends.pair.one->qp_num ? "right" : "wrong", wc.imm_data);
		const unsigned char *ip = bench->memory + 4096 + 20;
		say("header=%s version=%x", memcmp(ip + 12, bench->gid.raw + 12, 4) || memcmp(ip + 16, bench->gid.raw + 12, 4) ? "other" : "addresses",
		    ip[0]);
	}
	say("data=%u,%u", bench->memory[4136], bench->memory[4635]);
	ends_end(&ends);
}

CASE(ud_send_with_a_wrong_key)
{
	struct ends ends = ends_new(bench);

	must(!receive(bench, ends.pair.other, 4096, 540), "a receive");
	must(!datagram(bench, &ends, 500, 0x1235), "a datagram");
	say_next(bench, bench->send_cq, "send");
	say("receive=%s", quiet(bench->recv_cq) ? "nothing" : "something");
	must(!datagram(bench, &ends, 400, 0x80000000), "a datagram with the queue pair's own key");
	say_next(bench, bench->recv_cq, "receive");
	ends_end(&ends);
}

CASE(ud_send_longer_than_the_mtu)
{
	struct ends ends = ends_new(bench);

	must(!receive(bench, ends.pair.other, 4096, 10000), "a receive");
	int error = datagram(bench, &ends, 5000, 0x1234);
	say_error("post", error);
	if (!error)
		say_next(bench, bench->send_cq, "send");
	say("receive=%s", quiet(bench->recv_cq) ? "nothing" : "something");
	ends_end(&ends);
}

CASE(ud_send_longer_than_its_receive)
{
	struct ends ends = ends_new(bench);

	must(!receive(bench, ends.pair.other, 4096, 139), "a receive");
	must(!datagram(bench, &ends, 100, 0x1234), "a datagram");
	say_next(bench, bench->send_cq, "send");
	say("receive=%s", quiet(bench->recv_cq) ? "nothing" : "something");
	say_state("receiver", ends.pair.other);
	must(!datagram(bench, &ends, 99, 0x1234), "one that fits");
	say_next(bench, bench->recv_cq, "second");
	ends_end(&ends);
}

CASE(ud_send_from_a_key_of_nothing)
{
	struct ends ends = ends_new(bench);
	struct ibv_sge one = sge(bench, 0, 8);
	struct ibv_send_wr wr = { .sg_list = &one, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED,
				  .wr.ud = { ends.ah, ends.pair.other->qp_num, 0x1234 } };

	one.lkey += 0x77000;
	must(!post_wr(ends.pair.one, &wr), "a datagram");
	say_next(bench, bench->send_cq, "send");
	say_state("state", ends.pair.one);
	ends_end(&ends);
}

CASE(ud_group)
{
	struct ends ends = ends_new(bench);
	union ibv_gid group = { .raw = { 0xff, 0x0e, [10] = 0xff, [11] = 0xff, 239, 1, 2, 3 } };
	struct options connected = usual();
	struct ibv_qp *rc = qp_new(bench, connected);

	say_error("attach", ibv_attach_mcast(ends.pair.other, &group, 0));
	say_error("connected", ibv_attach_mcast(rc, &group, 0));
	say_error("detach", ibv_detach_mcast(ends.pair.other, &group, 0));
	say_error("detach again", ibv_detach_mcast(ends.pair.other, &group, 0));
	must(!ibv_destroy_qp(rc), "ending the queue pair");
	ends_end(&ends);
}
