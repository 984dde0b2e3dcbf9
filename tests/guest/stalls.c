/*
 * A program whose threads stop, are cancelled or are interrupted at a chosen place inside a verb.
 *
 * The places are the calls that the device makes of the threads library, which finds those of this program first: before
 * a lock is taken, and after an event was acknowledged. Two contexts with one QP each, connected to each other; a CQ
 * with a channel on the first.
 *
 *     start VERB PLACE   a thread that calls it: register, post, event (ibv_get_cq_event), async (ibv_get_async_event),
 *                        destroy_qp, destroy_cq
 *          PLACE         at_lock, at_ack: stops there, the answer is "inside"; signal: a handler that polls another CQ
 *                        runs there, then it stops; cancel: it is cancelled there; cancelled: already as it calls;
 *                        free: nothing. Of the last three the answer is "started".
 *     go                 lets the one go on that has stopped
 *     join VERB          its end: "returned", or "cancelled"
 *     ended VERB         whether it has: "yes" or "no"
 *     fill               posts sends until the first QP takes no more: how many
 *     fork               a child that uses nothing of it: its pid
 *     domain             opens an XRC domain that was open already, which cannot be moved
 *     alternate          gives the first QP an alternate path, with which it cannot be moved
 *     receive N          posts receives at the second QP
 *     poll               polls the first CQ, then the second: how many there were on the second
 *     raise              an asynchronous event about the first QP
 *     notify             asks for a completion event, and has one raised
 *     ack                acknowledges what the last event, or async, brought
 *
 * Each is answered by a line.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define DEPTH 16

enum place { FREE, AT_LOCK, AT_ACK, SIGNAL, CANCEL, CANCELLED, PLACES };
static const char *const places[PLACES] = { "free", "at_lock", "at_ack", "signal", "cancel", "cancelled" };

enum verb { REGISTER, POST, EVENT, ASYNC, DESTROY_QP, DESTROY_CQ, VERBS };
static const char *const verbs[VERBS] = { "register", "post", "event", "async", "destroy_qp", "destroy_cq" };

static struct ibv_context *contexts[2];
static struct ibv_pd *pds[2];
static struct ibv_comp_channel *channel;
static struct ibv_cq *cqs[2], *other;
static struct ibv_mr *mrs[2];
static struct ibv_qp *qps[2];
static char memory[8192];
static struct ibv_async_event async;

static struct caller {
	pthread_t thread;
	enum place place;
	int ended;
} callers[VERBS];

static sem_t inside, go;
static __thread enum place planned;
static __thread int acknowledging;

static void require(int holds, const char *what)
{
	if (holds)
		return;
	perror(what);
	exit(1);
}

static void stop_here(void)
{
	sem_post(&inside);
	while (sem_wait(&go))
		;
}

/* --- what the device calls -------------------------------------------------------------------------------------- */

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
	static int (*real)(pthread_mutex_t *);
	enum place here = planned;

	if (!real)
		real = (int (*)(pthread_mutex_t *))(uintptr_t)dlsym(RTLD_NEXT, "pthread_mutex_lock");
	if (here == AT_LOCK || here == SIGNAL || here == CANCEL) {
		planned = FREE;
		if (here == SIGNAL)
			raise(SIGUSR1);
		if (here == CANCEL) {
			/* As in a device whose commands are written to it. */
			pthread_cancel(pthread_self());
			pthread_testcancel();
		} else {
			stop_here();
		}
	}
	return real(mutex);
}

int pthread_cond_signal(pthread_cond_t *condition)
{
	acknowledging = 1;
	return pthread_cond_broadcast(condition);
}

int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
	static int (*real)(pthread_mutex_t *);

	if (!real)
		real = (int (*)(pthread_mutex_t *))(uintptr_t)dlsym(RTLD_NEXT, "pthread_mutex_unlock");
	int result = real(mutex), acknowledged = acknowledging;

	acknowledging = 0;
	if (planned == AT_ACK && acknowledged) {
		planned = FREE;
		stop_here();
	}
	return result;
}

static void poll_other(int signal)
{
	struct ibv_wc wc;

	(void)signal;
	ibv_poll_cq(other, 1, &wc);
}

/* --- the threads ------------------------------------------------------------------------------------------------ */

static int post_send(void)
{
	struct ibv_sge sge = { (uintptr_t)memory, 8, mrs[0]->lkey };
	struct ibv_send_wr wr = { .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED },
			   *bad;

	return ibv_post_send(qps[0], &wr, &bad);
}

static void post_receives(int count)
{
	while (count--) {
		struct ibv_sge sge = { (uintptr_t)memory, 8, mrs[1]->lkey };
		struct ibv_recv_wr wr = { .sg_list = &sge, .num_sge = 1 }, *bad;

		require(!ibv_post_recv(qps[1], &wr, &bad), "post_recv");
	}
}

static void call(enum verb verb)
{
	struct ibv_cq *cq;
	void *context;

	switch (verb) {
	case REGISTER:
		require(ibv_reg_mr(pds[0], memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE) != NULL, "reg_mr");
		break;
	case POST:
		require(!post_send(), "post_send");
		break;
	case EVENT:
		require(!ibv_get_cq_event(channel, &cq, &context) && cq == cqs[0], "get_cq_event");
		break;
	case ASYNC:
		require(!ibv_get_async_event(contexts[0], &async), "get_async_event");
		break;
	case DESTROY_QP:
		require(!ibv_destroy_qp(qps[0]), "destroy_qp");
		break;
	default:
		require(!ibv_destroy_cq(cqs[0]), "destroy_cq");
	}
}

static void *run(void *argument)
{
	enum verb verb = (enum verb)((struct caller *)argument - callers);
	struct ibv_wc wc;

	/* A thread that has polled before: no other thread's, that is. */
	ibv_poll_cq(other, 1, &wc);
	planned = callers[verb].place;
	if (planned == CANCELLED)
		pthread_cancel(pthread_self());
	call(verb);
	planned = FREE;
	__atomic_store_n(&callers[verb].ended, 1, __ATOMIC_RELEASE);
	pthread_testcancel();
	return NULL;
}

static enum verb verb_named(const char *name)
{
	int verb = 0;

	while (verb < VERBS - 1 && strcmp(verbs[verb], name))
		verb++;
	return (enum verb)verb;
}

static const char *start(const char *name, const char *where)
{
	struct caller *caller = &callers[verb_named(name)];

	caller->ended = 0;
	caller->place = FREE;
	while (strcmp(places[caller->place], where))
		caller->place++;
	require(!pthread_create(&caller->thread, NULL, run, caller), "pthread_create");
	if (caller->place != AT_LOCK && caller->place != AT_ACK && caller->place != SIGNAL)
		return "started";
	sem_wait(&inside);
	return "inside";
}

static const char *join(const char *name)
{
	void *result;

	pthread_join(callers[verb_named(name)].thread, &result);
	return result == PTHREAD_CANCELED ? "cancelled" : "returned";
}

/* --- the objects ------------------------------------------------------------------------------------------------ */

static void connect_to(struct ibv_qp *qp, struct ibv_qp *peer)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1 };

	require(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "INIT");
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = peer->qp_num,
				     .ah_attr = { .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1 } } };
	require(!ibv_query_gid(peer->context, 1, 1, &attr.ah_attr.grh.dgid), "GID");
	require(!ibv_modify_qp(qp, &attr,
			       IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				       IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER),
		"RTR");
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .rnr_retry = 7 };
	require(!ibv_modify_qp(qp, &attr,
			       IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
				       IBV_QP_MAX_QP_RD_ATOMIC),
		"RTS");
}

static void make(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	for (int s = 0; s < 2; s++) {
		require((contexts[s] = ibv_open_device(list[s])) && (pds[s] = ibv_alloc_pd(contexts[s])), "open");
		if (!s)
			require((channel = ibv_create_comp_channel(contexts[s])) != NULL, "channel");
		cqs[s] = ibv_create_cq(contexts[s], 4 * DEPTH, NULL, s ? NULL : channel, 0);
		mrs[s] = ibv_reg_mr(pds[s], memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE);
		require(cqs[s] && mrs[s], "objects");
		struct ibv_qp_init_attr init = { .send_cq = cqs[s], .recv_cq = cqs[s], .qp_type = IBV_QPT_RC,
						 .cap = { DEPTH, 2 * DEPTH, 1, 1, 0 } };
		require((qps[s] = ibv_create_qp(pds[s], &init)) != NULL, "qp");
	}
	require((other = ibv_create_cq(contexts[0], 8, NULL, NULL, 0)) != NULL, "other");
	ibv_free_device_list(list);
	connect_to(qps[0], qps[1]);
	connect_to(qps[1], qps[0]);
}

static int poll_all(struct ibv_cq *cq)
{
	struct ibv_wc wc;
	int count = 0, got;

	while ((got = ibv_poll_cq(cq, 1, &wc)) > 0)
		count += got;
	require(!got, "poll");
	return count;
}

static void answer(const char *line)
{
	char first[32], second[32];
	int count;

	if (sscanf(line, "start %31s %31s", first, second) == 2) {
		puts(start(first, second));
	} else if (sscanf(line, "join %31s", first) == 1) {
		puts(join(first));
	} else if (sscanf(line, "ended %31s", first) == 1) {
		puts(__atomic_load_n(&callers[verb_named(first)].ended, __ATOMIC_ACQUIRE) ? "yes" : "no");
	} else if (sscanf(line, "receive %d", &count) == 1) {
		post_receives(count);
		puts("ok");
	} else if (!strcmp(line, "poll\n")) {
		poll_all(cqs[0]);
		printf("%d\n", poll_all(cqs[1]));
	} else if (!strcmp(line, "raise\n")) {
		int (*raise_event)(uint32_t, int) = (int (*)(uint32_t, int))(uintptr_t)dlsym(RTLD_DEFAULT, "fake_raise");

		puts(raise_event(qps[0]->qp_num, IBV_EVENT_COMM_EST) ? "ok" : "no");
	} else if (!strcmp(line, "notify\n")) {
		post_receives(1);
		puts(ibv_req_notify_cq(cqs[0], 0) || post_send() ? "no" : "ok");
	} else if (!strcmp(line, "ack event\n")) {
		ibv_ack_cq_events(cqs[0], 1);
		puts("ok");
	} else if (!strcmp(line, "ack async\n")) {
		ibv_ack_async_event(&async);
		puts("ok");
	} else if (!strcmp(line, "fill\n")) {
		for (count = 0; !post_send(); count++)
			;
		printf("%d\n", count);
	} else if (!strcmp(line, "fork\n")) {
		int pid = fork();

		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				pause();
		}
		printf("%d\n", pid);
	} else if (!strcmp(line, "domain\n")) {
		struct ibv_xrcd_init_attr attr = { .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS,
						   .fd = fileno(stdin), .oflags = O_CREAT };

		puts(ibv_open_xrcd(contexts[0], &attr) && ibv_open_xrcd(contexts[0], &attr) ? "ok" : "no");
	} else if (!strcmp(line, "alternate\n")) {
		struct ibv_qp_attr attr = { .alt_port_num = 1, .alt_timeout = 14, .path_mig_state = IBV_MIG_REARM,
					    .alt_ah_attr = { .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1 } } };

		require(!ibv_query_gid(contexts[1], 1, 1, &attr.alt_ah_attr.grh.dgid), "GID");
		puts(ibv_modify_qp(qps[0], &attr, IBV_QP_ALT_PATH | IBV_QP_PATH_MIG_STATE) ? "no" : "ok");
	} else {
		sem_post(&go);
		puts("ok");
	}
}

int main(void)
{
	char line[128];

	sem_init(&inside, 0, 0);
	sem_init(&go, 0, 0);
	signal(SIGUSR1, poll_other);
	setvbuf(stdout, NULL, _IOLBF, 0);
	make();
	puts("ready");
	while (fgets(line, sizeof(line), stdin))
		answer(line);
	return 0;
}
