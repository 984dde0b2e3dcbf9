/* UD: addresses, keys, the 40 bytes in front, groups, losses. */
#include "rig.h"

#include <errno.h>

struct pair {
	struct rig rig;
	struct end left, right;
};

static void ud_pair(struct pair *pair)
{
	rig_up(&pair->rig);
	end_new(&pair->left, &pair->rig.left, IBV_QPT_UD, RNIC_NONE);
	end_new(&pair->right, &pair->rig.right, IBV_QPT_UD, RNIC_NONE);
	connect_ends(&pair->left, &pair->right);
}

static void down(struct pair *pair)
{
	end_destroy(&pair->left);
	end_destroy(&pair->right);
	rig_down(&pair->rig);
}

static struct rnic_send *datagram(struct pair *pair, uint64_t wr_id, uint32_t length)
{
	struct rnic_send *wr = request(&pair->left, wr_id, IBV_WR_SEND, 0, length);

	wr->ud.route = (struct rnic_route){ .sgid_index = 1, .hop_limit = 64, .port = 1, .is_global = 1 };
	SAME(rnic_gid_get(pair->rig.right.device, 1, wr->ud.route.dgid, NULL, NULL), 0);
	wr->ud.qpn = pair->right.qpn;
	wr->ud.qkey = 0x1234;
	return wr;
}

CASE(a_datagram_arrives_behind_its_header)
{
	struct pair pair;

	ud_pair(&pair);
	receive(&pair.right, 3, 0, 140);
	memset(pair.rig.left.memory, 5, 100);
	datagram(&pair, 1, 100);
	post(&pair.left);
	run(&pair.rig);
	expect(&pair.rig.left, 1, IBV_WC_SUCCESS);
	struct rnic_completion got = expect(&pair.rig.right, 3, IBV_WC_SUCCESS);
	SAME(got.bytes, 140);
	SAME(got.flags, IBV_WC_GRH);
	SAME(got.source_qpn, pair.left.qpn);
	const unsigned char *ip = pair.rig.right.memory + 20;
	SAME(ip[0], 0x45);
	CHECK(!memcmp(ip + 12, (unsigned char[8]){ 10, 0, 0, 1, 10, 0, 0, 2 }, 8));
	SAME(pair.rig.right.memory[40], 5);
	SAME(pair.rig.right.memory[139], 5);
	SAME(pair.rig.right.memory[140], 0);
	down(&pair);
}

CASE(a_datagram_with_a_wrong_key_or_for_nobody_is_lost)
{
	struct pair pair;

	ud_pair(&pair);
	receive(&pair.right, 3, 0, 200);
	datagram(&pair, 1, 100)->ud.qkey = 0x1235;
	post(&pair.left);
	datagram(&pair, 2, 100)->ud.qpn ^= 0x40;
	post(&pair.left);
	/* Too long for the receive, which stays. */
	datagram(&pair, 3, 161);
	post(&pair.left);
	datagram(&pair, 4, 160)->ud.qkey = 0x80000001; /* the QP's own */
	post(&pair.left);
	run(&pair.rig);
	for (uint64_t i = 1; i < 5; i++)
		expect(&pair.rig.left, i, IBV_WC_SUCCESS);
	SAME(expect(&pair.rig.right, 3, IBV_WC_SUCCESS).bytes, 200);
	expect_none(&pair.rig.right);
	down(&pair);
}

CASE(a_datagram_longer_than_the_ports_mtu_is_swallowed)
{
	struct pair pair;

	ud_pair(&pair);
	SAME(rnic_set(pair.rig.left.device, "mtu", IBV_MTU_1024), 0);
	receive(&pair.right, 3, 0, 5000);
	datagram(&pair, 1, 1025);
	post(&pair.left);
	datagram(&pair, 2, 1024);
	post(&pair.left);
	run(&pair.rig);
	expect(&pair.rig.left, 1, IBV_WC_SUCCESS);
	expect(&pair.rig.left, 2, IBV_WC_SUCCESS);
	SAME(expect(&pair.rig.right, 3, IBV_WC_SUCCESS).bytes, 1064);
	expect_none(&pair.rig.right);
	down(&pair);
}

CASE(a_group_hears_what_is_sent_to_it)
{
	struct pair pair;
	struct end third;
	const uint8_t group[16] = { 0xff, 0x0e, [15] = 9 };

	ud_pair(&pair);
	end_new(&third, &pair.rig.right, IBV_QPT_UD, RNIC_NONE);
	end_init(&third, 0);
	end_rtr(&third, &pair.left);
	SAME(rnic_attach(pair.rig.right.context, pair.right.qp, group, 0), 0);
	SAME(rnic_attach(pair.rig.right.context, third.qp, group, 0), 0);
	SAME(rnic_attach(pair.rig.right.context, third.qp, (uint8_t[16]){ 10 }, 0), EINVAL);
	/* The sender is a member, too, and does not hear itself. */
	SAME(rnic_attach(pair.rig.left.context, pair.left.qp, group, 0), 0);
	receive(&pair.left, 9, 0, 200);
	receive(&pair.right, 3, 0, 200);
	receive(&third, 4, 300, 200);
	for (uint64_t i = 1; i < 3; i++) {
		struct rnic_send *wr = datagram(&pair, i, 10);

		memcpy(wr->ud.route.dgid, group, 16);
		wr->ud.qpn = 0xffffff;
		post(&pair.left);
		run(&pair.rig);
		SAME(rnic_detach(pair.rig.right.context, pair.right.qp, group, 0), i == 1 ? 0 : EINVAL);
	}
	expect(&pair.rig.right, 3, IBV_WC_SUCCESS);
	expect(&pair.rig.right, 4, IBV_WC_SUCCESS);
	expect_none(&pair.rig.right);
	expect(&pair.rig.left, 1, IBV_WC_SUCCESS);
	expect(&pair.rig.left, 2, IBV_WC_SUCCESS);
	expect_none(&pair.rig.left);
	SAME(rnic_detach(pair.rig.left.context, pair.left.qp, group, 0), 0);
	SAME(rnic_destroy_qp(pair.rig.right.context, third.qp), EBUSY);
	SAME(rnic_detach(pair.rig.right.context, third.qp, group, 0), 0);
	end_destroy(&third);
	down(&pair);
}

CASE(datagrams_are_lost_and_overtaken_on_request)
{
	struct pair pair;
	struct rnic_completion got;
	int arrived = 0, overtaken = 0;
	uint32_t last = 0;

	ud_pair(&pair);
	SAME(rnic_set(pair.rig.left.device, "loss_ud", 200000), 0);
	SAME(rnic_set(pair.rig.left.device, "reorder_ud", 200000), 0);
	SAME(rnic_set(pair.rig.left.device, "loss_ud", 1000001), EINVAL);
	for (uint32_t i = 1; i <= 500; i++) {
		receive(&pair.right, i, 0, 100);
		struct rnic_send *wr = datagram(&pair, i, 4);
		wr->opcode = IBV_WR_SEND_WITH_IMM;
		wr->imm = i;
		post(&pair.left);
		run_for(&pair.rig, 30000);
		expect(&pair.rig.left, i, IBV_WC_SUCCESS);
		while (poll_one(&pair.rig.right, &got)) {
			arrived++;
			overtaken += got.imm < last;
			last = got.imm;
		}
		/* A lost datagram takes no receive. */
		if (pair.right.rq->produced - pair.right.rq->consumed > 12) {
			struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RESET };

			SAME(end_modify(&pair.right, &attr, IBV_QP_STATE), 0);
			end_init(&pair.right, 0);
			end_rtr(&pair.right, &pair.left);
		}
	}
	CHECK(arrived > 300 && arrived < 450);
	CHECK(overtaken > 30);
	down(&pair);
}

CASE(a_datagram_error_stops_the_send_queue_and_it_can_be_started_again)
{
	struct pair pair;
	struct ibv_qp_attr on = { .qp_state = IBV_QPS_RTS, .cur_qp_state = IBV_QPS_SQE };

	ud_pair(&pair);
	receive(&pair.right, 3, 0, 200);
	datagram(&pair, 1, 10)->sges[0].lkey ^= 0x900;
	post(&pair.left);
	datagram(&pair, 2, 10);
	post(&pair.left);
	run(&pair.rig);
	expect(&pair.rig.left, 1, IBV_WC_LOC_PROT_ERR);
	expect(&pair.rig.left, 2, IBV_WC_WR_FLUSH_ERR);
	state_is(&pair.left, IBV_QPS_SQE);
	SAME(end_modify(&pair.left, &on, IBV_QP_STATE | IBV_QP_CUR_STATE), 0);
	datagram(&pair, 4, 10);
	post(&pair.left);
	run(&pair.rig);
	expect(&pair.rig.left, 4, IBV_WC_SUCCESS);
	expect(&pair.rig.right, 3, IBV_WC_SUCCESS);
	down(&pair);
}

CASE(a_route_without_a_global_header_makes_no_address_handle)
{
	struct pair pair;
	struct rnic_route route = { .sgid_index = 1, .port = 1, .is_global = 1 };
	uint32_t ah;

	ud_pair(&pair);
	SAME(rnic_create_ah(pair.rig.left.context, pair.rig.left.pd, &route, &ah), 0);
	SAME(rnic_dealloc_pd(pair.rig.left.context, pair.rig.left.pd), EBUSY);
	SAME(rnic_destroy_ah(pair.rig.left.context, ah), 0);
	route.is_global = 0;
	SAME(rnic_create_ah(pair.rig.left.context, pair.rig.left.pd, &route, &ah), EINVAL);
	route.is_global = 1;
	route.port = 2;
	SAME(rnic_create_ah(pair.rig.left.context, pair.rig.left.pd, &route, &ah), EINVAL);
	down(&pair);
}
