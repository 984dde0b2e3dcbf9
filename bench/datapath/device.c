/*
 * What the calls of the data path cost on a device that works: queue pairs that are connected with themselves send and
 * receive eight bytes at a time. Prints a line of medians, in nanoseconds per call, for every so many rounds:
 *
 *     SEND RECV POLL EMPTY
 *
 * ibv_post_send, ibv_post_recv, ibv_poll_cq that finds one completion, ibv_poll_cq that finds none.
 *
 *     device DEVICE GID_INDEX QPS LINES       LINES 0: until told to stop by SIGTERM
 */
#include <infiniband/verbs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCH 16
#define ROUNDS 256
#define MOST_QPS 1024

enum call { SEND, RECV, POLL, EMPTY, CALLS };

static struct ibv_qp *qps[MOST_QPS];
static struct ibv_cq *cq;
static struct ibv_mr *mr;
static char memory[4096];
static double samples[CALLS][ROUNDS * BATCH * 2];
static int taken[CALLS];
static volatile sig_atomic_t stopping;

static void stop(int signal)
{
	(void)signal;
	stopping = 1;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int by_size(const void *one, const void *other)
{
	double difference = *(const double *)one - *(const double *)other;

	return difference < 0 ? -1 : difference > 0;
}

static double median(double *values, int count)
{
	qsort(values, (size_t)count, sizeof(*values), by_size);
	return values[count / 2];
}

/* What two looks at the clock take. */
static double overhead(void)
{
	static double values[1001];

	for (int i = 0; i < 1001; i++) {
		double begin = now();

		values[i] = now() - begin;
	}
	return median(values, 1001);
}

static void sample(enum call call, double spent, int calls)
{
	if (taken[call] < (int)(sizeof(samples[0]) / sizeof(samples[0][0])))
		samples[call][taken[call]++] = spent / calls;
}

static void connect_qp(struct ibv_qp *qp, const union ibv_gid *gid, int gid_index)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1 };
	int error = ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);

	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .dest_qp_num = qp->qp_num, .path_mtu = IBV_MTU_1024,
				     .min_rnr_timer = 12, .max_dest_rd_atomic = 1,
				     .ah_attr = { .is_global = 1, .port_num = 1,
						  .grh = { .dgid = *gid, .sgid_index = (uint8_t)gid_index } } };
	if (!error)
		error = ibv_modify_qp(qp, &attr,
				      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
					      IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7,
				     .max_rd_atomic = 1 };
	if (!error)
		error = ibv_modify_qp(qp, &attr,
				      IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
					      IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
	if (error)
		exit(3);
}

static void round_of(struct ibv_qp *qp, double clock)
{
	struct ibv_sge sge = { (uintptr_t)memory, 8, mr->lkey };
	struct ibv_recv_wr recv = { .sg_list = &sge, .num_sge = 1 }, *bad_recv;
	struct ibv_send_wr send = { .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND,
				    .send_flags = IBV_SEND_SIGNALED }, *bad_send;
	int failed = 0;
	double begin = now();

	for (int i = 0; i < BATCH; i++)
		failed += ibv_post_recv(qp, &recv, &bad_recv);
	sample(RECV, now() - begin - clock, BATCH);
	begin = now();
	for (int i = 0; i < BATCH; i++)
		failed += ibv_post_send(qp, &send, &bad_send);
	sample(SEND, now() - begin - clock, BATCH);
	for (int left = 2 * BATCH; left;) {
		struct ibv_wc wc;

		begin = now();
		int got = ibv_poll_cq(cq, 1, &wc);
		double spent = now() - begin - clock;

		if (got < 0 || (got && wc.status) || failed)
			exit(4);
		sample(got ? POLL : EMPTY, spent, 1);
		left -= got;
	}
}

int main(int argc, char **argv)
{
	int gid_index = argc == 5 ? atoi(argv[2]) : 0, count = argc == 5 ? atoi(argv[3]) : 0;
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *context = NULL;
	union ibv_gid gid;

	for (int i = 0; argc == 5 && list[i] && !context; i++)
		if (!strcmp(ibv_get_device_name(list[i]), argv[1]))
			context = ibv_open_device(list[i]);
	if (!context || count < 1 || count > MOST_QPS || ibv_query_gid(context, 1, gid_index, &gid))
		return 2;
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_qp_init_attr init = { .qp_type = IBV_QPT_RC, .cap = { BATCH, BATCH, 1, 1, 0 } };

	init.send_cq = init.recv_cq = cq = ibv_create_cq(context, 4 * BATCH, NULL, NULL, 0);
	mr = ibv_reg_mr(pd, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE);
	for (int i = 0; i < count; i++) {
		if (!(qps[i] = ibv_create_qp(pd, &init)))
			return 3;
		connect_qp(qps[i], &gid, gid_index);
	}
	signal(SIGTERM, stop);
	setvbuf(stdout, NULL, _IOLBF, 0);
	double clock = overhead();
	long lines = atol(argv[4]);
	int at = 0;

	for (long line = 0; !stopping && (!lines || line < lines); line++) {
		memset(taken, 0, sizeof(taken));
		for (int i = 0; i < ROUNDS; i++, at = (at + 1) % count)
			round_of(qps[at], clock);
		for (int call = 0; call < CALLS; call++)
			printf("%.1f%c", taken[call] ? median(samples[call], taken[call]) : 0, call + 1 < CALLS ? ' ' : '\n');
	}
	return 0;
}
