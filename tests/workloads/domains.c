/*
 * A process with two protection domains, and partners that each face one of them: which memory the partners reach.
 *
 *	domains serve			  takes two partners; the first to come faces the first domain
 *	domains reach ADDRESS		  a partner, of the server there
 *
 * The server has a region in each domain. It tells each partner, over TCP, the keys and addresses of both regions, and by the
 * rules of verbs the partner reaches only its own. The server prints "serving" when both are there. A partner tries at
 * once and at each SIGUSR1, on queue pairs of its own for every try, and prints "own: STATUS" and "other: STATUS": what
 * became of a write by the key of its own region and by the other's. The second puts both ends of the connection into the
 * error state, in which both stay for as long as the program runs, wherever it is moved to. The server prints "failed" when it
 * sees that.
 */
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
#include <unistd.h>

#define PORT 18700
#define GID_INDEX 1
#define TRIES 4
#define QPS (2 * TRIES)
#define REGION 4096

enum { OWN, OTHER };

struct region {
	uint64_t address;
	uint32_t rkey, reserved;
};

/* What each end tells the other once: where it is, its queue pairs, and of the server its regions, the partner's first. */
struct hello {
	union ibv_gid gid;
	uint32_t qpns[QPS];
	struct region regions[2];
};

static struct ibv_context *context;
static struct ibv_cq *cq;

static void require(int holds, const char *what)
{
	if (holds)
		return;
	printf("failed: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct ibv_qp *make_qp(struct ibv_pd *pd)
{
	struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = { 4, 4, 1, 1, 0 } };
	struct ibv_qp *qp = ibv_create_qp(pd, &init);

	require(qp != NULL, "create_qp");
	return qp;
}

static void join(struct ibv_qp *qp, const union ibv_gid *gid, uint32_t qpn)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = IBV_ACCESS_REMOTE_WRITE };

	require(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "INIT");
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = qpn,
				     .max_dest_rd_atomic = 1, .min_rnr_timer = 12,
				     .ah_attr = { .is_global = 1, .port_num = 1,
						  .grh = { .dgid = *gid, .sgid_index = GID_INDEX, .hop_limit = 64 } } };
	require(!ibv_modify_qp(qp, &attr,
			       IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				       IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER),
		"RTR");
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7,
				     .max_rd_atomic = 1 };
	require(!ibv_modify_qp(qp, &attr,
			       IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
				       IBV_QP_MAX_QP_RD_ATOMIC),
		"RTS");
}

static struct hello here(struct ibv_pd *pd, struct ibv_qp *qps[QPS])
{
	struct hello mine = { 0 };

	require(!ibv_query_gid(context, 1, GID_INDEX, &mine.gid), "query_gid");
	for (int i = 0; i < QPS; i++) {
		qps[i] = make_qp(pd);
		mine.qpns[i] = qps[i]->qp_num;
	}
	return mine;
}

/* Both say who they are, and connect to the other; the partner says when it has, and the connection ends. */
static struct hello meet(int connection, const struct hello *mine, struct ibv_qp *qps[QPS])
{
	struct hello theirs;
	char ready = 1;

	require(write(connection, mine, sizeof(*mine)) == sizeof(*mine), "write");
	require(recv(connection, &theirs, sizeof(theirs), MSG_WAITALL) == sizeof(theirs), "read");
	for (int i = 0; i < QPS; i++)
		join(qps[i], &theirs.gid, theirs.qpns[i]);
	require(write(connection, &ready, 1) == 1 && read(connection, &ready, 1) == 1, "ready");
	close(connection);
	return theirs;
}

static int has_failed(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;

	require(!ibv_query_qp(qp, &attr, IBV_QP_STATE, &init), "query_qp");
	return attr.qp_state == IBV_QPS_ERR;
}

static void watch(struct ibv_qp *qp, int *failed)
{
	int before = *failed;

	*failed = has_failed(qp);
	require(*failed >= before, "what has failed stays so");
	if (*failed > before)
		puts("failed");
}

static void serve(void)
{
	struct sockaddr_in name = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
	struct ibv_qp *qps[2][QPS];
	struct region regions[2];
	struct ibv_pd *pds[2];
	int failed[2][QPS] = { 0 };

	for (int i = 0; i < 2; i++) {
		void *memory = calloc(1, REGION);

		pds[i] = ibv_alloc_pd(context);
		struct ibv_mr *mr = ibv_reg_mr(pds[i], memory, REGION, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);

		require(mr != NULL, "reg_mr");
		regions[i] = (struct region){ (uintptr_t)memory, mr->rkey, 0 };
	}
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	require(!bind(listener, (struct sockaddr *)&name, sizeof(name)) && !listen(listener, 2), "listen");
	puts("listening");
	for (int i = 0; i < 2; i++) {
		struct hello mine = here(pds[i], qps[i]);

		mine.regions[OWN] = regions[i];
		mine.regions[OTHER] = regions[1 - i];
		meet(accept(listener, NULL, NULL), &mine, qps[i]);
	}
	close(listener);
	puts("serving");
	for (;;) {
		for (int i = 0; i < 2; i++)
			for (int k = 0; k < QPS; k++)
				watch(qps[i][k], &failed[i][k]);
		usleep(20000);
	}
}

static void try(struct ibv_qp *qp, struct ibv_mr *mr, const struct region *region, const char *whose)
{
	struct ibv_sge sge = { (uintptr_t)mr->addr, 8, mr->lkey };
	struct ibv_send_wr wr = { .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE,
				  .send_flags = IBV_SEND_SIGNALED,
				  .wr.rdma = { region->address, region->rkey } }, *bad;
	struct ibv_wc wc;
	int count;

	require(!ibv_post_send(qp, &wr, &bad), "post_send");
	while (!(count = ibv_poll_cq(cq, 1, &wc)))
		usleep(1000);
	require(count == 1, "poll_cq");
	printf("%s: %s\n", whose, ibv_wc_status_str(wc.status));
}

static void reach(const char *address)
{
	struct sockaddr_in name = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int connection = socket(AF_INET, SOCK_STREAM, 0), signal;
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_mr *mr = ibv_reg_mr(pd, calloc(1, REGION), REGION, IBV_ACCESS_LOCAL_WRITE);
	struct ibv_qp *qps[QPS];
	sigset_t wanted;

	require(mr && inet_pton(AF_INET, address, &name.sin_addr) == 1, "address");
	require(!connect(connection, (struct sockaddr *)&name, sizeof(name)), "connect");
	struct hello mine = here(pd, qps), theirs = meet(connection, &mine, qps);

	sigemptyset(&wanted);
	sigaddset(&wanted, SIGUSR1);
	for (int i = 0; i < TRIES; i++) {
		try(qps[2 * i + OWN], mr, &theirs.regions[OWN], "own");
		try(qps[2 * i + OTHER], mr, &theirs.regions[OTHER], "other");
		for (int k = 0; k <= i; k++)
			require(has_failed(qps[2 * k + OTHER]), "what has failed stays so");
		require(!sigwait(&wanted, &signal), "sigwait");
	}
}

int main(int argc, char **argv)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	sigset_t waited_for;

	setvbuf(stdout, NULL, _IOLBF, 0);
	/* Before the library begins threads of its own. */
	sigemptyset(&waited_for);
	sigaddset(&waited_for, SIGUSR1);
	sigprocmask(SIG_BLOCK, &waited_for, NULL);
	require(list && list[0] && (context = ibv_open_device(list[0])) != NULL, "open_device");
	cq = ibv_create_cq(context, 64, NULL, NULL, 0);
	require(cq != NULL, "create_cq");
	if (argc == 2 && !strcmp(argv[1], "serve"))
		serve();
	else if (argc == 3 && !strcmp(argv[1], "reach"))
		reach(argv[2]);
	return 2;
}
