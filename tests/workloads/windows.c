/*
 * A process whose memory a partner reaches by the keys of a region and of two windows, one of each type; with its queues in a
 * parent domain, a moderated completion queue and a limited rate, where the device has them.
 *
 *	windows serve			takes one partner
 *	windows reach ADDRESS		the partner, of the server there
 *
 * The server sends its keys to the partner, in a message: at first, at each SIGUSR2, and at SIGUSR1 after it has registered the
 * region and bound the windows anew. With each message the partner writes by all of the keys, and prints "region: STATUS",
 * "window 1: STATUS" and "window 2: STATUS". The server prints "region written" and so on, as it sees what was written.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT 18701
#define GID_INDEX 1
#define PART 4096

enum { REGION, WINDOW_1, WINDOW_2, KEYS };

static const char *const names[KEYS] = { "region", "window 1", "window 2" };

struct keys {
	uint64_t address[KEYS];
	uint32_t rkey[KEYS], turn;
};

struct hello {
	union ibv_gid gid;
	uint32_t qpn;
};

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_qp *qp;
static struct ibv_mr *mr, *messages;
static struct ibv_mw *windows[KEYS];
static struct keys *message;
static char *memory;
static sigset_t signals;

static void require(int holds, const char *what)
{
	if (holds)
		return;
	printf("failed: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void listen_for_keys(void)
{
	struct ibv_sge sge = { (uintptr_t)message, sizeof(*message), messages->lkey };
	struct ibv_recv_wr wr = { .sg_list = &sge, .num_sge = 1 }, *bad;

	require(!ibv_post_recv(qp, &wr, &bad), "post_recv");
}

static void join(const union ibv_gid *gid, uint32_t qpn, int listens)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = IBV_ACCESS_REMOTE_WRITE };

	require(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "INIT");
	if (listens)
		listen_for_keys();
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = qpn,
				     .max_dest_rd_atomic = 1, .min_rnr_timer = 12,
				     .ah_attr = { .is_global = 1, .port_num = 1,
						  .grh = { .dgid = *gid, .sgid_index = GID_INDEX, .hop_limit = 64 } } };
	require(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
						  IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER), "RTR");
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7,
				     .max_rd_atomic = 1 };
	require(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
						  IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC), "RTS");
}

/* Both say who they are, and connect to the other; the partner says when it has, and the connection ends. */
static void meet(int connection, int listens)
{
	struct hello mine = { .qpn = qp->qp_num }, theirs;
	char ready = 1;

	require(!ibv_query_gid(context, 1, GID_INDEX, &mine.gid), "query_gid");
	require(write(connection, &mine, sizeof(mine)) == sizeof(mine), "write");
	require(recv(connection, &theirs, sizeof(theirs), MSG_WAITALL) == sizeof(theirs), "read");
	join(&theirs.gid, theirs.qpn, listens);
	require(write(connection, &ready, 1) == 1 && read(connection, &ready, 1) == 1, "ready");
	close(connection);
}

static struct ibv_wc one_completion(void)
{
	struct ibv_wc wc;
	int count;

	while (!(count = ibv_poll_cq(cq, 1, &wc)))
		usleep(1000);
	require(count == 1, "poll_cq");
	return wc;
}

static void make_queues(void)
{
	struct ibv_td *td = ibv_alloc_td(context, &(struct ibv_td_init_attr){ 0 });
	struct ibv_parent_domain_init_attr parent = { .pd = pd, .td = td };
	struct ibv_pd *domain = td ? ibv_alloc_parent_domain(context, &parent) : NULL;
	struct ibv_cq_init_attr_ex attr = { .cqe = 64, .wc_flags = IBV_WC_STANDARD_FLAGS, .parent_domain = domain,
					    .comp_mask = IBV_CQ_INIT_ATTR_MASK_PD };
	struct ibv_cq_ex *ex = domain ? ibv_create_cq_ex(context, &attr) : NULL;

	cq = ex ? ibv_cq_ex_to_cq(ex) : ibv_create_cq(context, 64, NULL, NULL, 0);
	require(cq != NULL, "create_cq");
	int moderated = !ibv_modify_cq(cq, &(struct ibv_modify_cq_attr){ IBV_CQ_ATTR_MODERATE, { 4, 8 } });
	struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = { 8, 8, 1, 1, 0 } };
	qp = ibv_create_qp(domain ? domain : pd, &init);
	require(qp != NULL, "create_qp");
	printf("in %s domain, %s\n", domain ? "a parent" : "a plain", moderated ? "moderated" : "not moderated");
}

static void bind_all(void)
{
	for (int i = WINDOW_1; i < KEYS; i++) {
		struct ibv_mw_bind bind = { .bind_info = { mr, (uintptr_t)memory + (uint64_t)i * PART, PART,
							   IBV_ACCESS_REMOTE_WRITE }, .send_flags = IBV_SEND_SIGNALED };
		struct ibv_send_wr wr = { .opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED }, *bad;

		if (i == WINDOW_1) {
			require(!ibv_bind_mw(qp, windows[i], &bind), "bind_mw");
		} else {
			wr.bind_mw.mw = windows[i];
			wr.bind_mw.rkey = ibv_inc_rkey(windows[i]->rkey);
			wr.bind_mw.bind_info = bind.bind_info;
			require(!ibv_post_send(qp, &wr, &bad), "post_send of a bind");
			windows[i]->rkey = wr.bind_mw.rkey;
		}
		require(one_completion().status == IBV_WC_SUCCESS, "a bind");
	}
}

/* Not even a window that is bound to it may be left. */
static void let_go(void)
{
	struct ibv_mw_bind nothing = { .send_flags = IBV_SEND_SIGNALED };
	struct ibv_send_wr wr = { .opcode = IBV_WR_LOCAL_INV, .send_flags = IBV_SEND_SIGNALED,
				  .invalidate_rkey = windows[WINDOW_2]->rkey }, *bad;

	require(!ibv_post_send(qp, &wr, &bad), "post_send of an invalidation");
	require(one_completion().status == IBV_WC_SUCCESS, "an invalidation");
	require(!ibv_bind_mw(qp, windows[WINDOW_1], &nothing), "bind_mw to nothing");
	require(one_completion().status == IBV_WC_SUCCESS, "a bind to nothing");
}

static void tell(void)
{
	static uint32_t turn;
	struct ibv_sge sge = { (uintptr_t)message, sizeof(*message), messages->lkey };
	struct ibv_send_wr wr = { .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED }, *bad;

	message->turn = ++turn;
	for (int i = 0; i < KEYS; i++) {
		message->address[i] = (uintptr_t)memory + (uint64_t)i * PART;
		message->rkey[i] = i ? windows[i]->rkey : mr->rkey;
	}
	require(!ibv_post_send(qp, &wr, &bad), "post_send");
	require(one_completion().status == IBV_WC_SUCCESS, "a send");
}

static void look(void)
{
	for (int i = 0; i < KEYS; i++) {
		uint32_t *seen = (uint32_t *)(void *)(memory + (size_t)i * PART);

		if (!__atomic_exchange_n(seen, 0, __ATOMIC_ACQUIRE))
			continue;
		printf("%s written\n", names[i]);
	}
}

static void serve(void)
{
	const int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_MW_BIND;
	const struct timespec nap = { 0, 20000000 };
	struct sockaddr_in name = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;

	require(!posix_memalign((void **)&memory, PART, KEYS * PART), "memory");
	memset(memory, 0, KEYS * PART);
	mr = ibv_reg_mr(pd, memory, KEYS * PART, access);
	windows[WINDOW_1] = ibv_alloc_mw(pd, IBV_MW_TYPE_1);
	windows[WINDOW_2] = ibv_alloc_mw(pd, IBV_MW_TYPE_2);
	require(mr && windows[WINDOW_1] && windows[WINDOW_2], "memory");
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	require(!bind(listener, (struct sockaddr *)&name, sizeof(name)) && !listen(listener, 1), "listen");
	puts("listening");
	meet(accept(listener, NULL, NULL), 0);
	close(listener);
	/* Where there are none, there is nothing to see. */
	(void)!ibv_modify_qp_rate_limit(qp, &(struct ibv_qp_rate_limit_attr){ .rate_limit = 1000000 });
	bind_all();
	tell();
	for (;;) {
		int signal = sigtimedwait(&signals, NULL, &nap);

		look();
		if (signal == SIGUSR1) {
			let_go();
			require(!ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_TRANSLATION, NULL, memory, KEYS * PART, 0), "rereg_mr");
			bind_all();
		}
		if (signal > 0)
			tell();
	}
}

static void write_by(int which)
{
	struct ibv_sge sge = { (uintptr_t)&message->turn, sizeof(message->turn), messages->lkey };
	struct ibv_send_wr wr = { .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED,
				  .wr.rdma = { message->address[which], message->rkey[which] } }, *bad;

	require(!ibv_post_send(qp, &wr, &bad), "post_send of a WRITE");
	printf("%s: %s\n", names[which], ibv_wc_status_str(one_completion().status));
}

static void reach(const char *address)
{
	struct sockaddr_in name = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int connection = socket(AF_INET, SOCK_STREAM, 0);

	require(inet_pton(AF_INET, address, &name.sin_addr) == 1, "address");
	require(!connect(connection, (struct sockaddr *)&name, sizeof(name)), "connect");
	meet(connection, 1);
	for (;;) {
		require(one_completion().status == IBV_WC_SUCCESS, "a receive");
		for (int i = 0; i < KEYS; i++)
			write_by(i);
		listen_for_keys();
	}
}

int main(int argc, char **argv)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	setvbuf(stdout, NULL, _IOLBF, 0);
	/* Before the library begins threads of its own. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGUSR2);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	require(list && list[0] && (context = ibv_open_device(list[0])) != NULL, "open_device");
	require((pd = ibv_alloc_pd(context)) != NULL, "alloc_pd");
	require((message = calloc(1, PART)) != NULL, "memory");
	messages = ibv_reg_mr(pd, message, PART, IBV_ACCESS_LOCAL_WRITE);
	require(messages != NULL, "reg_mr");
	make_queues();
	if (argc == 2 && !strcmp(argv[1], "serve"))
		serve();
	else if (argc == 3 && !strcmp(argv[1], "reach"))
		reach(argv[2]);
	return 2;
}
