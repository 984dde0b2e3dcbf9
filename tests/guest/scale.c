/*
 * Many objects: QPs in pairs between two contexts, all of a side on one CQ, and memory regions that their messages
 * take in turn. Commands on stdin, one a line, each answered by a line "NAME NANOSECONDS-PER-OBJECT ..." (of processor time) or a complaint:
 *
 *     create QPS MRS     connected pairs, regions on both sides together
 *     talk               one message each way on every pair, with every region at least once
 *     more N             N QPs and N regions more, whose numbers nothing else alive has; ended again
 *     numbers DEVICE     what the device hands out next are numbers that live objects of the application have
 *     end
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct side {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_mr **mrs;
	struct ibv_qp **qps;
	uint64_t *received;
} sides[2];

static int pairs, regions;
static char memory[1 << 16];

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

#define NEED(condition)                                                                                    \
	do {                                                                                               \
		if (!(condition)) {                                                                        \
			printf("line %d: %s: %s\n", __LINE__, #condition, strerror(errno));                \
			exit(1);                                                                           \
		}                                                                                          \
	} while (0)

static struct ibv_qp *make_qp(struct side *side)
{
	struct ibv_qp_init_attr init = { .send_cq = side->cq, .recv_cq = side->cq, .qp_type = IBV_QPT_RC,
					 .cap = { 2, 2, 1, 1, 0 } };

	return ibv_create_qp(side->pd, &init);
}

static struct ibv_mr *make_mr(struct side *side)
{
	return ibv_reg_mr(side->pd, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
}

static void connect_qp(struct ibv_qp *qp, const struct ibv_qp *peer)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1 };

	NEED(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = peer->qp_num,
				     .ah_attr = { .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1 } } };
	NEED(!ibv_query_gid(peer->context, 1, 1, &attr.ah_attr.grh.dgid));
	NEED(!ibv_modify_qp(qp, &attr,
			    IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				    IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER));
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .rnr_retry = 7 };
	NEED(!ibv_modify_qp(qp, &attr,
			    IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
				    IBV_QP_MAX_QP_RD_ATOMIC));
}

static void create(int qp_count, int mr_count)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	double begin, qp_time = 0, mr_time = 0;

	pairs = qp_count / 2;
	regions = mr_count / 2;
	for (int s = 0; s < 2; s++) {
		struct side *side = &sides[s];

		NEED(side->context = ibv_open_device(list[s]));
		NEED(side->pd = ibv_alloc_pd(side->context));
		NEED(side->cq = ibv_create_cq(side->context, 4 * pairs, NULL, NULL, 0));
		side->mrs = calloc((size_t)regions, sizeof(*side->mrs));
		side->qps = calloc((size_t)pairs, sizeof(*side->qps));
		side->received = calloc((size_t)pairs, sizeof(*side->received));
		begin = now();
		for (int i = 0; i < regions; i++)
			NEED(side->mrs[i] = make_mr(side));
		mr_time += now() - begin;
		begin = now();
		for (int i = 0; i < pairs; i++)
			NEED(side->qps[i] = make_qp(side));
		qp_time += now() - begin;
	}
	ibv_free_device_list(list);
	begin = now();
	for (int i = 0; i < pairs; i++) {
		connect_qp(sides[0].qps[i], sides[1].qps[i]);
		connect_qp(sides[1].qps[i], sides[0].qps[i]);
	}
	printf("reg_mr %.0f create_qp %.0f modify_qp %.0f\n", mr_time / mr_count, qp_time / qp_count,
	       (now() - begin) / qp_count);
}

/* One round: every pair, with the regions from this one on. */
static int round_of_messages(int round)
{
	int expected = 0;

	for (int s = 0; s < 2; s++)
		for (int i = 0; i < pairs; i++) {
			struct ibv_mr *mr = sides[s].mrs[(round * pairs + i) % regions];
			struct ibv_sge sge = { (uintptr_t)memory, 8, mr->lkey };
			struct ibv_recv_wr recv = { .wr_id = (uint64_t)i, .sg_list = &sge, .num_sge = 1 }, *bad_recv;

			NEED(!ibv_post_recv(sides[s].qps[i], &recv, &bad_recv));
		}
	for (int s = 0; s < 2; s++)
		for (int i = 0; i < pairs; i++) {
			struct ibv_mr *mr = sides[s].mrs[(round * pairs + i) % regions];
			struct ibv_sge sge = { (uintptr_t)memory, 8, mr->lkey };
			struct ibv_send_wr send = { .wr_id = 1u << 20 | (uint32_t)i, .sg_list = &sge, .num_sge = 1,
						    .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED }, *bad_send;

			NEED(!ibv_post_send(sides[s].qps[i], &send, &bad_send));
			expected += 2;
		}
	for (int left = expected; left;) {
		for (int s = 0; s < 2; s++) {
			struct ibv_wc wc[32];
			int count = ibv_poll_cq(sides[s].cq, 32, wc);

			NEED(count >= 0);
			for (int i = 0; i < count; i++) {
				uint64_t pair = wc[i].wr_id & 0xfffff;

				NEED(wc[i].status == IBV_WC_SUCCESS);
				NEED(pair < (uint64_t)pairs && wc[i].qp_num == sides[s].qps[pair]->qp_num);
				NEED(!(wc[i].wr_id >> 20) == !!(wc[i].opcode & IBV_WC_RECV));
			}
			left -= count;
		}
		sched_yield();
	}
	return expected;
}

static void talk(void)
{
	double begin = now();
	int completions = 0;

	for (int round = 0; round * pairs < regions; round++)
		completions += round_of_messages(round);
	printf("completion %.0f\n", (now() - begin) / completions);
}

static int compare(const void *a, const void *b)
{
	return *(const uint32_t *)a < *(const uint32_t *)b ? -1 : *(const uint32_t *)a > *(const uint32_t *)b;
}

static void need_unique(uint32_t *numbers, int count)
{
	qsort(numbers, (size_t)count, sizeof(*numbers), compare);
	for (int i = 1; i < count; i++)
		NEED(numbers[i] != numbers[i - 1]);
}

static void more(int count)
{
	struct side *side = &sides[0];
	struct ibv_mr **mrs = calloc((size_t)count, sizeof(*mrs));
	struct ibv_qp **qps = calloc((size_t)count, sizeof(*qps));
	uint32_t *numbers = calloc((size_t)(count + regions + pairs), sizeof(*numbers));
	double begin = now(), mr_time, qp_time;

	for (int i = 0; i < count; i++)
		NEED(mrs[i] = make_mr(side));
	mr_time = now() - begin;
	begin = now();
	for (int i = 0; i < count; i++)
		NEED(qps[i] = make_qp(side));
	qp_time = now() - begin;
	for (int i = 0; i < regions + count; i++)
		numbers[i] = (i < regions ? side->mrs[i] : mrs[i - regions])->lkey;
	need_unique(numbers, regions + count);
	for (int i = 0; i < pairs + count; i++)
		numbers[i] = (i < pairs ? side->qps[i] : qps[i - pairs])->qp_num;
	need_unique(numbers, pairs + count);
	begin = now();
	for (int i = 0; i < count; i++)
		NEED(!ibv_destroy_qp(qps[i]) && !ibv_dereg_mr(mrs[i]));
	printf("reg_mr %.0f create_qp %.0f end %.0f\n", mr_time / count, qp_time / count, (now() - begin) / count);
	free(mrs);
	free(qps);
	free(numbers);
}

static void end(void)
{
	double begin = now(), qp_time;

	for (int s = 0; s < 2; s++)
		for (int i = 0; i < pairs; i++)
			NEED(!ibv_destroy_qp(sides[s].qps[i]));
	qp_time = now() - begin;
	begin = now();
	for (int s = 0; s < 2; s++)
		for (int i = 0; i < regions; i++)
			NEED(!ibv_dereg_mr(sides[s].mrs[i]));
	printf("destroy_qp %.0f dereg_mr %.0f\n", qp_time / (2 * pairs), (now() - begin) / (2 * regions));
	for (int s = 0; s < 2; s++)
		NEED(!ibv_destroy_cq(sides[s].cq) && !ibv_dealloc_pd(sides[s].pd) && !ibv_close_device(sides[s].context));
}

int main(void)
{
	char line[64];
	int a, b;

	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "create %d %d", &a, &b) == 2)
			create(a, b);
		else if (!strcmp(line, "talk\n"))
			talk();
		else if (sscanf(line, "more %d", &a) == 1)
			more(a);
		else if (sscanf(line, "numbers %d", &a) == 1) {
			void (*set)(int, uint32_t, uint32_t) =
				(void (*)(int, uint32_t, uint32_t))dlsym(RTLD_DEFAULT, "fake_set_numbers");

			set(a, sides[0].qps[0]->qp_num, sides[0].mrs[0]->lkey - 0x11);
			puts("ok");
		} else if (!strcmp(line, "end\n")) {
			end();
			return 0;
		} else {
			puts("what?");
		}
	}
	return 1;
}
