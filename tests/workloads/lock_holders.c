/*
 * A program whose threads do nothing but hold locks that a rebuild of its connections needs: they allocate, load libraries,
 * print, and post.
 *
 *	lock_holders
 *	lock_holders quiet
 *
 * Two queue pairs of its own write into each other's memory. It prints "tick N SECONDS", with the wall clock, a thousand times
 * a second, and "failed WHAT" before it ends if anything of RDMA fails. Quiet, it has one thread, which writes a number and
 * finds it at the other end before each tick, ten times a second: a hundred of it leave two processors free.
 */
#include <dlfcn.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BYTES 65536
#define ALLOCATING 3

static struct {
	struct ibv_context *context;
	struct ibv_cq *cq;
	struct ibv_mr *mr;
	struct ibv_qp *qp[2];
	union ibv_gid gid;
	uint8_t gid_index;
} rdma;

static void __attribute__((noreturn)) failed(const char *what)
{
	printf("failed %s\n", what);
	fflush(stdout);
	_exit(1);
}

static struct ibv_qp *make_qp(struct ibv_pd *pd)
{
	struct ibv_qp_init_attr init = {
		.send_cq = rdma.cq,
		.recv_cq = rdma.cq,
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 1, .max_recv_sge = 1 },
	};
	struct ibv_qp *qp = ibv_create_qp(pd, &init);

	if (!qp)
		failed("ibv_create_qp");
	return qp;
}

static void connect_qp(struct ibv_qp *qp, uint32_t to)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT,
				    .port_num = 1,
				    .qp_access_flags = IBV_ACCESS_REMOTE_WRITE };

	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS))
		failed("to INIT");
	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTR,
		.path_mtu = IBV_MTU_1024,
		.dest_qp_num = to,
		.max_dest_rd_atomic = 1,
		.min_rnr_timer = 12,
		.ah_attr = { .is_global = 1,
			     .port_num = 1,
			     .grh = { .dgid = rdma.gid, .sgid_index = rdma.gid_index, .hop_limit = 64 } },
	};
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				     IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER))
		failed("to RTR");
	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 1 };
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
				     IBV_QP_MAX_QP_RD_ATOMIC))
		failed("to RTS");
}

/* The last GID: on RoCE an IPv4 address, where there is one, comes after the link-local one. */
static void choose_gid(void)
{
	static const union ibv_gid none;
	union ibv_gid gid;
	int found = 0;

	for (int i = 0; i < 16; i++)
		if (!ibv_query_gid(rdma.context, 1, i, &gid) && memcmp(&gid, &none, sizeof(gid))) {
			rdma.gid = gid;
			rdma.gid_index = (uint8_t)i;
			found = 1;
		}
	if (!found)
		failed("no GID");
}

static void set_up(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	if (!list || !list[0])
		failed("no RDMA device");
	rdma.context = ibv_open_device(list[0]);
	if (!rdma.context)
		failed("ibv_open_device");
	ibv_free_device_list(list);

	struct ibv_pd *pd = ibv_alloc_pd(rdma.context);

	rdma.cq = ibv_create_cq(rdma.context, 64, NULL, NULL, 0);
	rdma.mr = pd ? ibv_reg_mr(pd, aligned_alloc(4096, BYTES), BYTES, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE) :
		       NULL;
	if (!rdma.cq || !rdma.mr)
		failed("ibv_create_cq, ibv_reg_mr");
	choose_gid();
	rdma.qp[0] = make_qp(pd);
	rdma.qp[1] = make_qp(pd);
	connect_qp(rdma.qp[0], rdma.qp[1]->qp_num);
	connect_qp(rdma.qp[1], rdma.qp[0]->qp_num);
}

static void *allocate(void *unused)
{
	(void)unused;
	for (;;) {
		void *small = malloc(100), *large = malloc(3000);

		__asm__ volatile("" : : "r"(small), "r"(large) : "memory");
		free(small);
		free(large);
	}
	return NULL;
}

static void *load(void *unused)
{
	(void)unused;
	for (;;) {
		void *library = dlopen("libBrokenLocale.so.1", RTLD_NOW);

		if (!library)
			failed("dlopen");
		dlclose(library);
	}
	return NULL;
}

static void *print(void *nowhere)
{
	for (unsigned long number = 0;; number++)
		fprintf(nowhere, "%lu\n", number);
	return NULL;
}

/* One write to the other end, looked for without a pause or with one. */
static void write_once(useconds_t pause)
{
	struct ibv_sge sge = { (uintptr_t)rdma.mr->addr, 1024, rdma.mr->lkey };
	struct ibv_send_wr *bad, wr = {
		.opcode = IBV_WR_RDMA_WRITE,
		.send_flags = IBV_SEND_SIGNALED,
		.sg_list = &sge,
		.num_sge = 1,
		.wr.rdma = { (uintptr_t)rdma.mr->addr + BYTES / 2, rdma.mr->rkey },
	};
	struct ibv_wc wc;
	int count;

	if (ibv_post_send(rdma.qp[0], &wr, &bad))
		failed("ibv_post_send");
	while (!(count = ibv_poll_cq(rdma.cq, 1, &wc)))
		if (pause)
			usleep(pause);
	if (count < 0 || wc.status != IBV_WC_SUCCESS)
		failed(count < 0 ? "ibv_poll_cq" : ibv_wc_status_str(wc.status));
}

static void *post(void *unused)
{
	(void)unused;
	for (;;)
		write_once(0);
	return NULL;
}

static void start(void *(*function)(void *), void *argument)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, function, argument))
		failed("pthread_create");
}

static void tick(unsigned long number, useconds_t pause)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	printf("tick %lu %lld.%09ld\n", number, (long long)now.tv_sec, now.tv_nsec);
	usleep(pause);
}

static void __attribute__((noreturn)) be_quiet(void)
{
	volatile unsigned long *here = rdma.mr->addr, *there = here + BYTES / 2 / sizeof(*here);

	for (unsigned long number = 1;; number++) {
		*here = number;
		write_once(1000);
		if (*there != number)
			failed("another number has arrived");
		tick(number, 100000);
	}
}

int main(int count, char **words)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	set_up();
	if (count > 1 && !strcmp(words[1], "quiet"))
		be_quiet();
	for (int i = 0; i < ALLOCATING; i++)
		start(allocate, NULL);
	start(load, NULL);
	start(print, fopen("/dev/null", "w"));
	start(post, NULL);
	for (unsigned long number = 1;; number++)
		tick(number, 1000);
}
