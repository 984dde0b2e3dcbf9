/*
 * What one call of the data path, or one QP, costs: with a device whose functions do nothing, so that all that is left is the
 * call, and the guest library if it is there.
 *
 *     datapath QPS MRS CALL COUNT
 *
 * QPS queue pairs (a power of two) on one completion queue are used in turn, and 64 of MRS memory regions. Says
 * "ready" and waits for a line, so that it can be moved before; then prints nanoseconds per call, or per completion.
 * CALL "memory": prints the bytes of heap and mappings that each QP has taken. measure.py has callgrind count the instructions inside the functions measure_*.
 */
#include <infiniband/verbs.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCH 16
#define KEYS 64

static struct ibv_qp **qps;
static unsigned int qp_mask;
static struct ibv_cq *cq;
static struct ibv_srq *srq; /* of the calls about one */
static struct ibv_ah *ah;   /* of those about datagrams */
static struct ibv_qp_ex **builders; /* the QPs, of the calls that build */
static uint32_t keys[KEYS];
static char memory[4096];
static long failed;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* Requests are filled in anew each time, as applications do. */
__attribute__((noinline)) static void measure_post_send(long count, long at)
{
	for (long i = at; i < at + count; i++) {
		struct ibv_sge sge = { (uintptr_t)memory, 8, keys[i % KEYS] };
		struct ibv_send_wr wr, *bad;

		wr.wr_id = (uint64_t)i;
		wr.next = NULL;
		wr.sg_list = &sge;
		wr.num_sge = 1;
		wr.opcode = IBV_WR_RDMA_WRITE;
		wr.send_flags = 0;
		wr.wr.rdma.remote_addr = (uintptr_t)memory;
		wr.wr.rdma.rkey = sge.lkey;
		failed += ibv_post_send(qps[i & qp_mask], &wr, &bad);
	}
}

/* One request that is built, by four calls. */
__attribute__((noinline)) static void measure_build_send(long count, long at)
{
	for (long i = at; i < at + count; i++) {
		struct ibv_qp_ex *qp = builders[i & qp_mask];

		ibv_wr_start(qp);
		qp->wr_id = (uint64_t)i;
		qp->wr_flags = 0;
		ibv_wr_rdma_write(qp, keys[i % KEYS], (uintptr_t)memory);
		ibv_wr_set_sge(qp, keys[i % KEYS], (uintptr_t)memory, 8);
		failed += ibv_wr_complete(qp);
	}
}

__attribute__((noinline)) static void measure_post_datagram(long count, long at)
{
	for (long i = at; i < at + count; i++) {
		struct ibv_sge sge = { (uintptr_t)memory, 8, keys[i % KEYS] };
		struct ibv_send_wr wr, *bad;

		wr.wr_id = (uint64_t)i;
		wr.next = NULL;
		wr.sg_list = &sge;
		wr.num_sge = 1;
		wr.opcode = IBV_WR_SEND;
		wr.send_flags = 0;
		wr.wr.ud.ah = ah;
		wr.wr.ud.remote_qpn = 17;
		wr.wr.ud.remote_qkey = 1;
		failed += ibv_post_send(qps[i & qp_mask], &wr, &bad);
	}
}

__attribute__((noinline)) static void measure_post_xrc(long count, long at)
{
	for (long i = at; i < at + count; i++) {
		struct ibv_sge sge = { (uintptr_t)memory, 8, keys[i % KEYS] };
		struct ibv_send_wr wr, *bad;

		wr.wr_id = (uint64_t)i;
		wr.next = NULL;
		wr.sg_list = &sge;
		wr.num_sge = 1;
		wr.opcode = IBV_WR_RDMA_WRITE;
		wr.send_flags = 0;
		wr.wr.rdma.remote_addr = (uintptr_t)memory;
		wr.wr.rdma.rkey = keys[i % KEYS];
		wr.qp_type.xrc.remote_srqn = 1;
		failed += ibv_post_send(qps[i & qp_mask], &wr, &bad);
	}
}

__attribute__((noinline)) static void measure_post_recv(long count, long at)
{
	for (long i = at; i < at + count; i++) {
		struct ibv_sge sge = { (uintptr_t)memory, 8, keys[i % KEYS] };
		struct ibv_recv_wr wr, *bad;

		wr.wr_id = (uint64_t)i;
		wr.next = NULL;
		wr.sg_list = &sge;
		wr.num_sge = 1;
		failed += ibv_post_recv(qps[i & qp_mask], &wr, &bad);
	}
}

__attribute__((noinline)) static void measure_post_srq_recv(long count, long at)
{
	for (long i = at; i < at + count; i++) {
		struct ibv_sge sge = { (uintptr_t)memory, 8, keys[i % KEYS] };
		struct ibv_recv_wr wr, *bad;

		wr.wr_id = (uint64_t)i;
		wr.next = NULL;
		wr.sg_list = &sge;
		wr.num_sge = 1;
		failed += ibv_post_srq_recv(srq, &wr, &bad);
	}
}

__attribute__((noinline)) static void measure_poll_empty(long count, long at)
{
	struct ibv_wc wc[1];

	(void)at;
	for (long i = 0; i < count; i++)
		failed += ibv_poll_cq(cq, 0, wc);
}

__attribute__((noinline)) static void measure_poll_single(long count, long at)
{
	struct ibv_wc wc[1];

	(void)at;
	for (long i = 0; i < count; i++)
		failed += ibv_poll_cq(cq, 1, wc) != 1;
}

__attribute__((noinline)) static void measure_poll_batch(long count, long at)
{
	struct ibv_wc wc[BATCH];

	(void)at;
	for (long i = 0; i < count; i += BATCH)
		failed += ibv_poll_cq(cq, BATCH, wc) != BATCH;
}

static const struct {
	const char *name;
	void (*run)(long count, long at);
	enum {
		AT_ONCE,
		BY_TURNS, /* every receive is completed, or the memory of them would grow */
		FED,	  /* and every one was posted that is completed */
	} how;
} calls[] = {
	{ "post_send", measure_post_send, AT_ONCE },	{ "post_recv", measure_post_recv, BY_TURNS },
	{ "poll_empty", measure_poll_empty, AT_ONCE },	{ "poll_single", measure_poll_single, AT_ONCE },
	{ "poll_batch", measure_poll_batch, AT_ONCE },	{ "memory", NULL, AT_ONCE },
	{ "post_srq_recv", measure_post_srq_recv, BY_TURNS },
	{ "build_send", measure_build_send, AT_ONCE },	{ "post_datagram", measure_post_datagram, AT_ONCE },
	{ "post_xrc", measure_post_xrc, AT_ONCE },
	{ "poll_srq_single", measure_poll_single, FED },
	{ "poll_srq_batch", measure_poll_batch, FED },
};

static int connect_qp(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1 };
	int error = ibv_modify_qp(qp, &attr,
				  IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | (ah ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS));

	if (ah) {
		for (attr.qp_state = IBV_QPS_RTR; !error && attr.qp_state <= IBV_QPS_RTS; attr.qp_state++)
			error = ibv_modify_qp(qp, &attr, IBV_QP_STATE | (attr.qp_state == IBV_QPS_RTS ? IBV_QP_SQ_PSN : 0));
		return error;
	}
	attr.qp_state = IBV_QPS_RTR;
	attr.ah_attr.is_global = 1;
	attr.ah_attr.port_num = 1;
	attr.ah_attr.grh.dgid.raw[15] = 1;
	attr.dest_qp_num = qp->qp_num;
	error = error ? error
		      : ibv_modify_qp(qp, &attr,
				      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
					      IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
	attr.qp_state = IBV_QPS_RTS;
	return error ? error
		     : ibv_modify_qp(qp, &attr,
				     IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
					     IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
}

static size_t heap;

static size_t heap_in_use(void)
{
	struct mallinfo2 info = mallinfo2();

	return info.uordblks + info.hblkhd;
}

static struct ibv_qp *make_qp(struct ibv_context *context, struct ibv_pd *pd, struct ibv_qp_init_attr *init, int builds)
{
	struct ibv_qp_init_attr_ex extended = { .send_cq = cq, .recv_cq = cq, .cap = init->cap, .qp_type = init->qp_type,
						.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
						.pd = pd, .send_ops_flags = IBV_QP_EX_WITH_RDMA_WRITE };

	return builds ? ibv_create_qp_ex(context, &extended) : ibv_create_qp(pd, init);
}

static int make(struct ibv_context *context, unsigned int qp_count, int mr_count, const char *call)
{
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_qp_init_attr init = { .qp_type = IBV_QPT_RC, .cap = { 64, 64, 1, 1, 0 } };
	int spread = mr_count / KEYS ? mr_count / KEYS : 1, used = 0;

	struct ibv_srq_init_attr shared = { .attr = { 2048, 1, 0 } };

	int builds = !strncmp(call, "build", 5);

	srq = init.srq = strstr(call, "srq") ? ibv_create_srq(pd, &shared) : NULL;
	if (strstr(call, "xrc"))
		init.qp_type = IBV_QPT_XRC_SEND;
	if (strstr(call, "datagram")) {
		struct ibv_ah_attr attr = { .is_global = 1, .port_num = 1 };

		attr.grh.dgid.raw[15] = 1;
		init.qp_type = IBV_QPT_UD;
		ah = ibv_create_ah(pd, &attr);
	}
	builders = calloc(qp_count, sizeof(*builders));
	cq = init.send_cq = init.recv_cq = ibv_create_cq(context, 256, NULL, NULL, 0);
	qps = calloc(qp_count, sizeof(*qps));
	qp_mask = qp_count - 1;
	for (int i = 0; i < mr_count; i++) {
		struct ibv_mr *mr = ibv_reg_mr(pd, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);

		if (!mr)
			return -1;
		if (i % spread == 0 && used < KEYS)
			keys[used++] = mr->lkey;
	}
	for (int i = used; i < KEYS; i++)
		keys[i] = keys[i % used];
	heap = heap_in_use();
	for (unsigned int i = 0; i < qp_count; i++)
		if (!(qps[i] = make_qp(context, pd, &init, builds)) || connect_qp(qps[i]) ||
		    (builds && !(builders[i] = ibv_qp_to_qp_ex(qps[i]))))
			return -1;
	heap = heap_in_use() - heap;
	return 0;
}

int main(int argc, char **argv)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *context = list ? ibv_open_device(list[0]) : NULL;
	long count = argc == 5 ? atol(argv[4]) : 0;
	struct ibv_wc wc[1024];
	double spent = 0;
	char line[16];
	size_t call;

	for (call = 0; argc == 5 && call < sizeof(calls) / sizeof(calls[0]); call++)
		if (!strcmp(argv[3], calls[call].name))
			break;
	if (!context || count < 1 || call == sizeof(calls) / sizeof(calls[0]) ||
	    make(context, (unsigned int)atoi(argv[1]), atoi(argv[2]), argv[3]))
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	if (!fgets(line, sizeof(line), stdin))
		return 2;
	if (!calls[call].run) {
		printf("%.0f\n", (double)heap / (qp_mask + 1));
		return 0;
	}
	/* The first calls of a thread and of a queue do more than the others. */
	for (int i = 0; i < 3; i++)
		for (unsigned int at = 0; at <= qp_mask; at += 8) {
			unsigned int some = qp_mask < 7 ? qp_mask + 1 : 8;

			(ah ? measure_post_datagram : measure_post_send)(some, at);
			/* What sends by XRC receives nothing. */
			if (qps[0]->qp_type == IBV_QPT_XRC_SEND)
				continue;
			(srq ? measure_post_srq_recv : measure_post_recv)(some, at);
			failed += ibv_poll_cq(cq, (int)some, wc) != (int)some;
		}
	for (long done = 0, part; done < count; done += part) {
		part = calls[call].how != AT_ONCE ? (qp_mask + 1) * (qp_mask ? 1 : 32) : count;
		if (calls[call].how == FED)
			measure_post_srq_recv(part, done);
		double begin = now();
		calls[call].run(part, done);
		spent += now() - begin;
		if (calls[call].how == BY_TURNS)
			failed += ibv_poll_cq(cq, (int)part, wc) != (int)part;
	}
	printf("%.2f\n", spent / (double)count);
	return failed != 0;
}
