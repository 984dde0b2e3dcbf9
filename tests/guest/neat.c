/*
 * A program that looks whether the library leaves anything behind: errno after what succeeded, signal masks and
 * handlers, descriptors after everything is closed, and hundreds of threads that come, post, poll and go.
 *
 * Commands on stdin: "open", "use" (again and again), "crowd N" (N threads at once), "close". Each is answered by "ok"
 * or by what is wrong.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_comp_channel *channel;
static struct ibv_cq *cq;
static struct ibv_mr *mr;
static struct ibv_qp *qp;
static char memory[64];
static char wrong[256];

#define MARK 77

/* Whatever the expression says must be true, and errno what it was. */
#define NEED(expression)                                                                                   \
	do {                                                                                               \
		errno = MARK;                                                                              \
		if (!(expression))                                                                         \
			return snprintf(wrong, sizeof(wrong), "line %d: %s: errno %d", __LINE__, #expression, errno); \
		if (errno != MARK)                                                                         \
			return snprintf(wrong, sizeof(wrong), "line %d: %s: changed errno to %d", __LINE__, #expression, errno); \
	} while (0)

/* As the program found them: who starts it may ignore some. */
static void (*handlers[65])(int);

static int signals(void)
{
	sigset_t mask, none;

	sigemptyset(&none);
	if (pthread_sigmask(SIG_SETMASK, NULL, &mask))
		return 1;
	for (int number = 1; number < 65; number++) {
		struct sigaction action;

		if (sigismember(&mask, number) > 0)
			return snprintf(wrong, sizeof(wrong), "signal %d is blocked", number);
		if (!sigaction(number, NULL, &action) && action.sa_handler != handlers[number])
			return snprintf(wrong, sizeof(wrong), "signal %d has a handler", number);
	}
	return 0;
}

static int open_all(void)
{
	struct ibv_qp_init_attr init = { .qp_type = IBV_QPT_RC, .cap = { 8, 8, 1, 1, 0 } };
	struct ibv_device **list;

	NEED(list = ibv_get_device_list(NULL));
	NEED(context = ibv_open_device(list[0]));
	NEED((ibv_free_device_list(list), 1));
	NEED(pd = ibv_alloc_pd(context));
	NEED(channel = ibv_create_comp_channel(context));
	NEED(cq = ibv_create_cq(context, 64, NULL, channel, 0));
	NEED(mr = ibv_reg_mr(pd, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE));
	init.send_cq = init.recv_cq = cq;
	NEED(qp = ibv_create_qp(pd, &init));

	/* With itself. */
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1 };
	NEED(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024,
				     .dest_qp_num = qp->qp_num,
				     .ah_attr = { .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1 } } };
	NEED(!ibv_query_gid(context, 1, 1, &attr.ah_attr.grh.dgid));
	NEED(!ibv_modify_qp(qp, &attr,
			    IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				    IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER));
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .rnr_retry = 7 };
	NEED(!ibv_modify_qp(qp, &attr,
			    IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
				    IBV_QP_MAX_QP_RD_ATOMIC));
	return signals();
}

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

/* One message to itself, and every question that may be asked on the way. */
static int use(void)
{
	struct ibv_sge sge = { (uintptr_t)memory, 8, mr->lkey };
	struct ibv_recv_wr recv = { .wr_id = 1, .sg_list = &sge, .num_sge = 1 }, *bad_recv;
	struct ibv_send_wr send = { .wr_id = 2, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND,
				    .send_flags = IBV_SEND_SIGNALED }, *bad_send;
	struct ibv_qp_init_attr init;
	struct ibv_device_attr device;
	struct ibv_port_attr port;
	struct ibv_qp_attr attr;
	struct ibv_wc wc;
	int left = 2, count;

	NEED(!ibv_req_notify_cq(cq, 0));
	NEED(!ibv_post_recv(qp, &recv, &bad_recv));
	NEED(!ibv_post_send(qp, &send, &bad_send));
	while (left) {
		NEED((count = ibv_poll_cq(cq, 1, &wc)) >= 0);
		if (count && (wc.status != IBV_WC_SUCCESS || wc.qp_num != qp->qp_num))
			return snprintf(wrong, sizeof(wrong), "a completion is wrong");
		left -= count;
	}
	NEED(!ibv_query_qp(qp, &attr, IBV_QP_STATE, &init));
	NEED(!ibv_query_device(context, &device));
	NEED(!ibv_query_port(context, 1, &port));
	return signals();
}

static void *visit(void *result)
{
	pthread_mutex_lock(&turn);
	*(int *)result = use();
	pthread_mutex_unlock(&turn);
	return NULL;
}

static int crowd(int count)
{
	pthread_t *threads = calloc((size_t)count, sizeof(*threads));
	int *results = calloc((size_t)count, sizeof(*results)), sum = 0;

	for (int i = 0; i < count; i++)
		if (pthread_create(&threads[i], NULL, visit, &results[i]))
			abort();
	for (int i = 0; i < count; i++) {
		pthread_join(threads[i], NULL);
		sum += results[i];
	}
	free(threads);
	free(results);
	return sum;
}

static int descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	int count = 0;

	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

static int close_all(void)
{
	NEED(!ibv_destroy_qp(qp));
	NEED(!ibv_dereg_mr(mr));
	NEED(!ibv_destroy_cq(cq));
	NEED(!ibv_destroy_comp_channel(channel));
	NEED(!ibv_dealloc_pd(pd));
	NEED(!ibv_close_device(context));
	return signals();
}

int main(void)
{
	int number, before;
	char line[32];

	for (int signal = 1; signal < 65; signal++) {
		struct sigaction action;

		if (!sigaction(signal, NULL, &action))
			handlers[signal] = action.sa_handler;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	before = descriptors();
	while (fgets(line, sizeof(line), stdin)) {
		int bad = 0;

		if (!strcmp(line, "open\n"))
			bad = open_all();
		else if (!strcmp(line, "use\n"))
			bad = use();
		else if (sscanf(line, "crowd %d", &number) == 1)
			bad = crowd(number);
		else if (!strcmp(line, "close\n"))
			bad = close_all();
		else if (!strcmp(line, "descriptors\n")) {
			printf("%d\n", descriptors() - before);
			continue;
		}
		puts(bad ? wrong : "ok");
	}
	return 0;
}
