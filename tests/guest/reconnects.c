#include "reconnects.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#define MESSAGES 12

struct party {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_mr *mr;
	struct ibv_qp *qp;
	uint64_t memory[2 * MESSAGES];
	int received, sent;
};

static int make(struct party *party)
{
	struct ibv_qp_init_attr init = { .qp_type = IBV_QPT_RC, .cap = { MESSAGES, MESSAGES, 1, 1, 0 } };

	party->pd = ibv_alloc_pd(party->context);
	init.send_cq = init.recv_cq = party->cq = ibv_create_cq(party->context, 2 * MESSAGES, party, NULL, 0);
	party->mr = party->pd ? ibv_reg_mr(party->pd, party->memory, sizeof(party->memory), IBV_ACCESS_LOCAL_WRITE) : NULL;
	party->qp = party->mr && party->cq ? ibv_create_qp(party->pd, &init) : NULL;
	return party->qp ? 0 : errno;
}

static int connect_to(struct party *party, const struct party *peer)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1 };
	int error = ibv_modify_qp(party->qp, &attr,
				  IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);

	for (int i = 0; i < MESSAGES && !error; i++) {
		struct ibv_sge sge = { (uintptr_t)&party->memory[MESSAGES + i], 8, party->mr->lkey };
		struct ibv_recv_wr wr = { .wr_id = 0x100u + (unsigned)i, .sg_list = &sge, .num_sge = 1 }, *bad;

		error = ibv_post_recv(party->qp, &wr, &bad);
	}
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = peer->qp->qp_num,
				     .rq_psn = peer->qp->qp_num,
				     .ah_attr = { .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1 } } };
	error = error ? error : ibv_query_gid(peer->context, 1, 1, &attr.ah_attr.grh.dgid);
	error = error ? error
		      : ibv_modify_qp(party->qp, &attr,
				      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
					      IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .sq_psn = party->qp->qp_num, .rnr_retry = 7 };
	return error ? error
		     : ibv_modify_qp(party->qp, &attr,
				     IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
					     IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
}

/* Every third is signalled, and the last. */
static int is_signalled(int number) { return number % 3 == 2; }

static int send_all(struct party *party)
{
	for (int i = 0; i < MESSAGES; i++) {
		struct ibv_sge sge = { (uintptr_t)&party->memory[i], 8, party->mr->lkey };
		struct ibv_send_wr wr = { .wr_id = 0x200u + (unsigned)i, .sg_list = &sge, .num_sge = 1,
					  .opcode = IBV_WR_SEND_WITH_IMM, .imm_data = htonl((uint32_t)i),
					  .send_flags = is_signalled(i) ? IBV_SEND_SIGNALED : 0 }, *bad;
		int error;

		party->memory[i] = 0x5eed0000u + (unsigned)i;
		if ((error = ibv_post_send(party->qp, &wr, &bad)))
			return error;
	}
	return 0;
}

/* What is wrong with the next completions, or NULL. */
static const char *look(struct party *party)
{
	struct ibv_wc wc[4];
	int count = ibv_poll_cq(party->cq, 4, wc);

	for (int i = 0; i < count; i++) {
		if (wc[i].status != IBV_WC_SUCCESS)
			return "a status";
		if (wc[i].qp_num != party->qp->qp_num)
			return "a QPN";
		if (wc[i].opcode & IBV_WC_RECV) {
			int number = party->received++;

			if (wc[i].wr_id != 0x100u + (unsigned)number || ntohl(wc[i].imm_data) != (uint32_t)number ||
			    party->memory[MESSAGES + number] != 0x5eed0000u + (unsigned)number)
				return "a receive";
		} else {
			while (party->sent < MESSAGES && !is_signalled(party->sent))
				party->sent++;
			if (wc[i].wr_id != 0x200u + (unsigned)party->sent++)
				return "a send";
		}
	}
	return count < 0 ? "polling" : NULL;
}

static int is_done(const struct party *party)
{
	return party->received == MESSAGES && party->sent == MESSAGES;
}

static const char *talk(struct party *parties)
{
	time_t deadline = time(NULL) + 20;
	const char *wrong;

	if (connect_to(&parties[0], &parties[1]) || connect_to(&parties[1], &parties[0]))
		return "connecting";
	if (send_all(&parties[0]) || send_all(&parties[1]))
		return "posting";
	while (!is_done(&parties[0]) || !is_done(&parties[1])) {
		for (int i = 0; i < 2; i++)
			if ((wrong = look(&parties[i])))
				return wrong;
		if (time(NULL) > deadline)
			return "a completion that never came";
		sched_yield();
	}
	return NULL;
}

static int end(struct party *party)
{
	return (party->qp && ibv_destroy_qp(party->qp)) || (party->mr && ibv_dereg_mr(party->mr)) ||
	       (party->cq && ibv_destroy_cq(party->cq)) || (party->pd && ibv_dealloc_pd(party->pd));
}

void *reconnect(void *argument)
{
	struct reconnects *reconnects = argument;

	while (!*reconnects->finished) {
		static struct party parties[2];
		const char *wrong = "making the objects";

		memset(parties, 0, sizeof(parties));
		for (int i = 0; i < 2; i++)
			parties[i].context = reconnects->contexts[i];
		if (!make(&parties[0]) && !make(&parties[1]))
			wrong = talk(parties);
		if (wrong) {
			reconnects->complain("reconnects, round %lu: %s: %s", reconnects->rounds, wrong, strerror(errno));
			return NULL;
		}
		/* The messages have arrived; the acknowledgement of the last signalled one has, too. */
		if (end(&parties[0]) || end(&parties[1]))
			reconnects->complain("reconnects, round %lu: not ended", reconnects->rounds);
		reconnects->rounds++;
	}
	return NULL;
}
