/* Calls in any order with anything in them: what no application should do, and a daemon must outlive. */
#include "rig.h"

#define PARTIES 4
#define OBJECTS 24
#define STEPS 60000

static uint64_t seed;

static uint32_t any(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)((seed >> 11) % below);
}

struct user {
	struct party party;
	struct end ends[OBJECTS];
	int end_count;
	struct rnic_ring *srq_ring;
	uint32_t srq, srqn, mw[4], mw_rkey[4];
	int windows;
};

static void user_open(struct user *user, struct rig *rig)
{
	*user = (struct user){ .srq = RNIC_NONE };
	party_open(&user->party, any(2) ? rig->left.device : rig->right.device);
}

static void user_close(struct user *user)
{
	rnic_close(user->party.context);
	user->party.context = NULL;
	for (int i = 0; i < user->end_count; i++)
		end_destroy(&user->ends[i]);
	free(user->srq_ring);
	free(user->party.memory);
	free(user->party.cq_ring);
}

static void make(struct user *user)
{
	static const enum ibv_qp_type types[] = { IBV_QPT_RC, IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD, IBV_QPT_XRC_SEND };
	struct rnic_srq_init init = { .pd = user->party.pd, .type = IBV_SRQT_BASIC, .max_wr = 8, .max_sge = 2, .limit = any(8) };

	if (user->srq == RNIC_NONE && any(2)) {
		init.ring = user->srq_ring = ring_new(8, rnic_stride(sizeof(struct rnic_receive), 2, 0));
		SAME(rnic_create_srq(user->party.context, &init, &user->srq, &user->srqn), 0);
	} else if (user->windows < 4 && any(3) == 0) {
		SAME(rnic_alloc_mw(user->party.context, user->party.pd, any(2) ? IBV_MW_TYPE_1 : IBV_MW_TYPE_2,
				   &user->mw[user->windows], &user->mw_rkey[user->windows]),
		     0);
		user->windows++;
	} else if (user->end_count < OBJECTS) {
		enum ibv_qp_type type = types[any(5)];

		end_new(&user->ends[user->end_count++], &user->party, type,
			any(3) || type == IBV_QPT_XRC_SEND ? RNIC_NONE : user->srq);
	}
}

static void change(struct user *user, struct end *end, struct end *peer)
{
	struct ibv_qp_attr attr = { .qp_state = any(8), .cur_qp_state = any(7), .port_num = (uint8_t)any(3), .path_mtu = any(7),
				    .timeout = (uint8_t)any(20), .retry_cnt = (uint8_t)any(9), .rnr_retry = (uint8_t)any(9),
				    .qp_access_flags = any(16), .sq_psn = 0xfffff0, .rq_psn = 0xfffff0 };

	if (any(3) == 0) {
		rnic_modify_qp(user->party.context, end->qp, &attr, (int)any(1u << 21));
		return;
	}
	/* As it should be, so that something happens, too. */
	attr.qp_state = IBV_QPS_RESET;
	rnic_modify_qp(user->party.context, end->qp, &attr, IBV_QP_STATE);
	end_init(end, any(8) ? 14 : 0);
	end_rtr(end, peer);
	if (any(8))
		end_rts(end, (uint8_t)any(8), (uint8_t)any(8));
}

static bool is_broken(struct user *user, struct end *end)
{
	struct ibv_qp_attr attr;

	return rnic_query_qp(user->party.context, end->qp, &attr) || attr.qp_state != IBV_QPS_RTS;
}

static void post_anything(struct user *user, struct end *end, struct user *peer, struct end *to)
{
	struct rnic_send *wr = rnic_ring_free(end->sq, 0);

	if (!wr)
		return;
	memset(wr, 0, sizeof(*wr));
	wr->wr_id = seed;
	bool wild = any(12) == 0;
	/* Writes, sends and their like, or the whole range and beyond. */
	wr->opcode = wild ? any(12) : any(4);
	wr->flags = wild ? any(32) : any(2) * IBV_SEND_SIGNALED;
	wr->imm = any(2) ? peer->mw_rkey[any(4)] : any(1u << 24);
	wr->bytes = any(100);
	wr->num_sge = wild ? any(6) : any(4);
	for (uint32_t i = 0; i < 4; i++)
		wr->sges[i] = (struct rnic_sge){ (uintptr_t)user->party.memory + any(MEMORY / 2), any(16) ? any(1000) : any(400000),
						 user->party.lkey + (wild && any(2)) };
	if (end->type == IBV_QPT_UD) {
		wr->ud.route.sgid_index = (uint8_t)any(256);
		rnic_gid_get(peer->party.device, 1, wr->ud.route.dgid, NULL, NULL);
		wr->ud.qpn = any(10) ? to->qpn : any(1u << 24);
		wr->ud.qkey = 0x1234 + (any(10) == 0);
	} else if (wr->opcode == IBV_WR_BIND_MW) {
		uint32_t window = any(4);

		wr->bind.mw = user->mw[window];
		wr->bind.mr = user->party.mr;
		wr->bind.rkey = user->mw_rkey[window] + any(3);
		wr->bind.present = user->mw_rkey[window] + any(3);
		wr->bind.address = (uintptr_t)user->party.memory + any(MEMORY);
		wr->bind.length = any(3) * any(4000);
		wr->bind.access = any(16);
	} else {
		wr->rdma.address = (uintptr_t)peer->party.memory + any(MEMORY / 2);
		wr->rdma.rkey = wild ? peer->mw_rkey[any(4)] : peer->party.rkey;
	}
	rnic_ring_give(end->sq, 1);
	rnic_doorbell(user->party.context, end->qp);
}

static void receive_anything(struct user *user, struct end *end)
{
	struct rnic_ring *ring = user->srq_ring && any(2) ? user->srq_ring : end->rq;
	struct rnic_receive *wr = rnic_ring_free(ring, 0);

	if (!wr)
		return;
	wr->wr_id = seed;
	wr->num_sge = any(50) ? 1 + any(2) : any(UINT32_MAX);
	for (int i = 0; i < 2; i++)
		wr->sges[i] = (struct rnic_sge){ (uintptr_t)user->party.memory + any(MEMORY / 2), any(8) ? MEMORY / 2 : any(5000),
						 user->party.lkey + (any(50) == 0) };
	rnic_ring_give(ring, 1);
	if (ring == end->rq)
		rnic_doorbell(user->party.context, end->qp);
	else
		rnic_srq_doorbell(user->party.context, user->srq);
}

static void end_one(struct user *user)
{
	int gone = (int)any((uint32_t)user->end_count);

	if (rnic_destroy_qp(user->party.context, user->ends[gone].qp))
		return;
	free(user->ends[gone].sq);
	free(user->ends[gone].rq);
	user->ends[gone] = user->ends[--user->end_count];
}

static void shake(struct rig *rig)
{
	static const char *const names[] = { "loss_rc",	   "loss_uc",	 "loss_ud",   "reorder_uc",   "reorder_ud",  "repeat_send",
					     "flip_byte",  "bandwidth",	 "latency",   "wait_for_peer", "lose_receive", "foreign_key",
					     "drop_completion" };
	static const uint32_t most[] = { 300000, 300000, 300000, 300000, 300000, 5, 5, 2000000000, 100000, 2, 5, 5, 5 };
	uint32_t which = any(13);
	struct rnic_device *device = any(2) ? rig->left.device : rig->right.device;

	switch (any(6)) {
	case 0: rnic_part(rig->left.device, rig->right.device, any(6) == 0); break;
	case 1: rnic_port(device, any(8)); break;
	case 2: rnic_raise(device, (enum ibv_event_type)any(20), any(6000)); break;
	default: SAME(rnic_set(device, names[which], any(most[which])), 0);
	}
}

/* A counter that cannot be, for as long as the device looks at it. */
static void lie(struct rig *rig, struct user *user, uint32_t *counter, struct end *end)
{
	uint32_t truth = *counter;

	*counter = any(UINT32_MAX);
	rnic_doorbell(user->party.context, end->qp);
	rnic_run(rig->fabric, 20);
	*counter = truth;
}

static void step(struct rig *rig, struct user *users)
{
	struct user *user = &users[any(PARTIES)], *peer = &users[any(PARTIES)];
	struct end *end, *to;

	for (int i = 0; i < PARTIES; i++)
		users[i].party.event_count = 0;
	rig->left.event_count = rig->right.event_count = 0;
	if (!user->end_count || !peer->end_count || any(40) == 0) {
		make(user);
		return;
	}
	end = &user->ends[any((uint32_t)user->end_count)];
	to = &peer->ends[any((uint32_t)peer->end_count)];
	switch (any(20)) {
	case 0:
	case 13:
	case 14:
		if (end->type == to->type && (any(20) == 0 || is_broken(user, end))) {
			change(user, end, to);
			change(peer, to, end);
		}
		break;
	case 1:
		if (any(4) == 0)
			end_one(user);
		break;
	case 2:
		if (any(60) == 0) {
			user_close(user);
			user_open(user, rig);
		}
		break;
	case 3: shake(rig); break;
	case 4:
	case 5:
	case 6:
	case 7: receive_anything(user, end); break;
	case 8:
	case 9: user->party.cq_ring->consumed = user->party.cq_ring->produced; break;
	case 10:
		rig_time += any(1000000);
		rnic_run(rig->fabric, (int)any(50));
		break;
	case 11: lie(rig, user, &end->sq->produced, end); break;
	case 12: lie(rig, user, &user->party.cq_ring->consumed, end); break;
	default:
		post_anything(user, end, peer, to);
		rnic_run(rig->fabric, (int)any(10));
	}
}

/* The sanitizers say whether anything was touched that should not have been. */
CASE(calls_in_any_order_break_nothing)
{
	for (uint64_t round = 1; round <= 3; round++) {
		struct rig rig;
		struct user users[PARTIES];

		seed = round * 0x9e3779b97f4a7c15;
		rig_up(&rig);
		for (int i = 0; i < PARTIES; i++)
			user_open(&users[i], &rig);
		for (int i = 0; i < STEPS; i++)
			step(&rig, users);
		CHECK(rnic_count(rig.left.device, "executed") + rnic_count(rig.right.device, "executed") > STEPS / 50);
		for (int i = 0; i < PARTIES; i++)
			user_close(&users[i]);
		rig_time += 100000000000;
		for (int i = 0; rnic_run(rig.fabric, 100); i++)
			CHECK(i < 100000);
		SAME(rnic_count(rig.left.device, "qps") + rnic_count(rig.right.device, "qps"), 0);
		SAME(rnic_count(rig.left.device, "in_flight") + rnic_count(rig.right.device, "in_flight"), 0);
		rig_down(&rig);
	}
}
