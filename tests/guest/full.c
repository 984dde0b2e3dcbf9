/*
 * Queues as small as they may be: as many signalled sends as the queues hold, as many receives, and completion queues
 * with room for exactly these.
 *
 *     full [SENDS]       with that many sends in each send queue instead of DEPTH
 *
 * Commands on stdin, each answered by a line:
 *
 *     receive            posts DEPTH receives on every QP of the second side
 *     receive all        posts SENDS + DEPTH receives on each in one list: the first SENDS are used while it is posted
 *     receive one        posts one on each
 *     refused receive    one more of each, of no scatter entry, is refused with ENOMEM and named
 *     fill               posts SENDS sends on every QP of the first side, in lists of three: all accepted
 *     refused            one more send of each is refused with ENOMEM, and the second of a list of two named
 *     poll               takes everything and checks it: "N M", sends and receives
 *     reset              takes every QP through RESET, which forgets what was posted, and connects it again
 *     overflows
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAIRS 6
#define DEPTH 7
#define MOST 512

static int sends = DEPTH;

static struct side {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_mr *mr;
	struct ibv_qp *qps[PAIRS];
	uint64_t completed[PAIRS], posted[PAIRS];
} sides[2];

static char memory[64];

#define NEED(condition)                                                                                    \
	do {                                                                                               \
		if (!(condition)) {                                                                        \
			printf("line %d: %s: %s\n", __LINE__, #condition, strerror(errno));                \
			return -1;                                                                         \
		}                                                                                          \
	} while (0)

static int connect_all(void)
{
	for (int i = 0; i < 2 * PAIRS; i++) {
		struct ibv_qp *qp = sides[i % 2].qps[i / 2], *peer = sides[!(i % 2)].qps[i / 2];
		struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1 };

		NEED(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
		attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024,
					     .dest_qp_num = peer->qp_num,
					     .ah_attr = { .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1 } } };
		NEED(!ibv_query_gid(peer->context, 1, 1, &attr.ah_attr.grh.dgid));
		NEED(!ibv_modify_qp(qp, &attr,
				    IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
					    IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER));
		attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .rnr_retry = 7 };
		NEED(!ibv_modify_qp(qp, &attr,
				    IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
					    IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC));
	}
	return 0;
}

static int make(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	for (int s = 0; s < 2; s++) {
		struct side *side = &sides[s];

		NEED(side->context = ibv_open_device(list[s]));
		NEED(side->pd = ibv_alloc_pd(side->context));
		NEED(side->cq = ibv_create_cq(side->context, PAIRS * sends, NULL, NULL, 0));
		NEED(side->cq->cqe >= PAIRS * sends);
		NEED(side->mr = ibv_reg_mr(side->pd, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE));
		for (int i = 0; i < PAIRS; i++) {
			struct ibv_qp_init_attr init = { .send_cq = side->cq, .recv_cq = side->cq, .qp_type = IBV_QPT_RC,
							 .cap = { (uint32_t)sends, DEPTH, 1, 1, 0 } };

			NEED(side->qps[i] = ibv_create_qp(side->pd, &init));
		}
	}
	ibv_free_device_list(list);
	return connect_all();
}

static int reset(void)
{
	for (int i = 0; i < 2 * PAIRS; i++) {
		struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RESET };

		NEED(!ibv_modify_qp(sides[i % 2].qps[i / 2], &attr, IBV_QP_STATE));
		sides[i % 2].posted[i / 2] = sides[i % 2].completed[i / 2] = 0;
	}
	return connect_all();
}

static int receive(int count)
{
	for (int i = 0; i < PAIRS; i++)
		for (int n = 0; n < count; n++) {
			struct ibv_sge sge = { (uintptr_t)memory, 8, sides[1].mr->lkey };
			struct ibv_recv_wr wr = { .wr_id = sides[1].posted[i]++, .sg_list = &sge, .num_sge = 1 }, *bad;

			NEED(!ibv_post_recv(sides[1].qps[i], &wr, &bad));
		}
	return 0;
}

static int refused_receive(void)
{
	for (int i = 0; i < PAIRS; i++) {
		struct ibv_recv_wr wr = { .wr_id = 1000000 }, *bad = NULL;

		NEED(ibv_post_recv(sides[1].qps[i], &wr, &bad) == ENOMEM && bad == &wr);
	}
	return 0;
}

static int receive_all(void)
{
	static struct ibv_recv_wr wrs[MOST + DEPTH];
	struct ibv_sge sge = { (uintptr_t)memory, 8, sides[1].mr->lkey };

	for (int i = 0; i < PAIRS; i++) {
		struct ibv_recv_wr *bad;

		for (int n = 0; n < sends + DEPTH; n++)
			wrs[n] = (struct ibv_recv_wr){ .wr_id = sides[1].posted[i]++, .sg_list = &sge, .num_sge = 1,
						       .next = n + 1 < sends + DEPTH ? &wrs[n + 1] : NULL };
		NEED(!ibv_post_recv(sides[1].qps[i], wrs, &bad));
	}
	return 0;
}

static void describe(struct ibv_send_wr *wr, struct ibv_sge *sge, uint64_t number)
{
	*sge = (struct ibv_sge){ (uintptr_t)memory, 8, sides[0].mr->lkey };
	*wr = (struct ibv_send_wr){ .wr_id = number, .sg_list = sge, .num_sge = 1, .opcode = IBV_WR_SEND,
				    .send_flags = IBV_SEND_SIGNALED };
}

static int fill(void)
{
	for (int i = 0; i < PAIRS; i++)
		for (int n = 0; n < sends;) {
			struct ibv_send_wr wrs[3], *bad;
			struct ibv_sge sges[3];
			int count = 0;

			for (; count < 3 && n < sends; count++, n++) {
				describe(&wrs[count], &sges[count], sides[0].posted[i]++);
				if (count)
					wrs[count - 1].next = &wrs[count];
			}
			NEED(!ibv_post_send(sides[0].qps[i], wrs, &bad));
		}
	return 0;
}

/* Whether one more is refused, with everything as the real library does it. */
static int refused(void)
{
	for (int i = 0; i < PAIRS; i++) {
		struct ibv_send_wr wrs[2], *bad = NULL;
		struct ibv_sge sges[2];

		describe(&wrs[0], &sges[0], 1000000);
		describe(&wrs[1], &sges[1], 1000001);
		wrs[0].next = &wrs[1];
		NEED(ibv_post_send(sides[0].qps[i], wrs, &bad) == ENOMEM && bad == &wrs[0]);
	}
	return 0;
}

static int poll_all(void)
{
	int counts[2] = { 0, 0 };

	for (int s = 0; s < 2; s++) {
		struct ibv_wc wc[5];
		int count;

		while ((count = ibv_poll_cq(sides[s].cq, 5, wc)) > 0)
			for (int n = 0; n < count; n++) {
				int i = 0;

				while (i < PAIRS && sides[s].qps[i]->qp_num != wc[n].qp_num)
					i++;
				NEED(i < PAIRS && wc[n].status == IBV_WC_SUCCESS);
				NEED(!!(wc[n].opcode & IBV_WC_RECV) == s);
				NEED(wc[n].wr_id == sides[s].completed[i]);
				sides[s].completed[i]++;
				counts[s]++;
			}
		NEED(count == 0);
	}
	printf("%d %d\n", counts[0], counts[1]);
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t (*count)(const char *) = (uint64_t(*)(const char *))dlsym(RTLD_DEFAULT, "fake_count");
	char line[32];

	if (argc > 1)
		sends = atoi(argv[1]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (sends > MOST || make())
		return 1;
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "poll\n"))
			poll_all();
		else if (!strcmp(line, "overflows\n"))
			printf("%d\n", (int)count("overflows"));
		else if (!strcmp(line, "receive\n")	       ? !receive(DEPTH)
			 : !strcmp(line, "receive one\n")     ? !receive(1)
			 : !strcmp(line, "refused receive\n") ? !refused_receive()
			 : !strcmp(line, "receive all\n")     ? !receive_all()
			 : !strcmp(line, "fill\n")	       ? !fill()
			 : !strcmp(line, "reset\n")	       ? !reset()
							       : !refused())
			puts("ok");
	}
	return 0;
}
