/*
 * Ping-pong that goes by events alone: as perftest's latency tools with -e do it, one completion is polled for each event.
 *
 *	by_events serve			waits for the other end
 *	by_events ask ADDRESS		connects, and begins
 *
 * Each of PAIRS queue pairs has a completion queue for its receives with a channel of its own, and one message under way
 * between both ends. So an event that no completion belongs to is seen ("an event too many"), and one that is missing stops its
 * pair for ever. SIGUSR1: a line "turns N" when every pair has gone on N times since.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 18704
#define GID_INDEX 1
#define PAIRS 16
#define TURNS 20

struct end {
	union ibv_gid gid;
	uint32_t qpns[PAIRS];
};

static struct pair {
	struct ibv_comp_channel *channel;
	struct ibv_cq *receives;
	struct ibv_qp *qp;
	unsigned int turns, sent;
} pairs[PAIRS];

static struct ibv_cq *sends;
static volatile sig_atomic_t asked;

static void on_sigusr1(int signal)
{
	(void)signal;
	asked = 1;
}

static void require(int holds, const char *what)
{
	if (holds)
		return;
	printf("wrong: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void receive(struct pair *pair)
{
	struct ibv_recv_wr wr = { .num_sge = 0 }, *bad;

	require(!ibv_post_recv(pair->qp, &wr, &bad), "post_recv");
}

/* Every eighth is signalled, so that few completions of sends are polled, and those without an event. */
static void answer(struct pair *pair)
{
	struct ibv_send_wr wr = { .opcode = IBV_WR_SEND, .send_flags = ++pair->sent % 8 ? 0 : IBV_SEND_SIGNALED }, *bad;
	struct ibv_wc wc;

	while (ibv_poll_cq(sends, 1, &wc) > 0)
		require(wc.status == IBV_WC_SUCCESS, ibv_wc_status_str(wc.status));
	require(!ibv_post_send(pair->qp, &wr, &bad), "post_send");
}

static void make(struct ibv_context *context, struct ibv_pd *pd, struct pair *pair)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1 };

	pair->channel = ibv_create_comp_channel(context);
	require(pair->channel != NULL, "create_comp_channel");
	pair->receives = ibv_create_cq(context, 16, pair, pair->channel, 0);
	require(pair->receives && !ibv_req_notify_cq(pair->receives, 0), "create_cq");
	struct ibv_qp_init_attr init = {
		.send_cq = sends, .recv_cq = pair->receives, .qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = 32, .max_recv_wr = 8, .max_send_sge = 1, .max_recv_sge = 1 },
	};
	pair->qp = ibv_create_qp(pd, &init);
	require(pair->qp && !ibv_modify_qp(pair->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
		"create_qp");
	receive(pair);
	receive(pair);
}

static void connect_to(struct pair *pair, const struct end *other, uint32_t qpn)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = qpn, .max_dest_rd_atomic = 1, .min_rnr_timer = 12,
		.ah_attr = { .is_global = 1, .port_num = 1, .grh = { .dgid = other->gid, .sgid_index = GID_INDEX, .hop_limit = 64 } },
	};

	require(!ibv_modify_qp(pair->qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
		IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER), "modify_qp to RTR");
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 1 };
	require(!ibv_modify_qp(pair->qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
		IBV_QP_MAX_QP_RD_ATOMIC), "modify_qp to RTS");
}

/* The two tell each other who they are, and nobody goes on before both are connected. */
static int meet(const char *address)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	if (!address) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		require(!bind(fd, (struct sockaddr *)&in, sizeof(in)) && !listen(fd, 1), "listen");
		puts("listening");
		int taken = accept(fd, NULL, NULL);
		close(fd);
		return taken;
	}
	inet_pton(AF_INET, address, &in.sin_addr);
	require(!connect(fd, (struct sockaddr *)&in, sizeof(in)), "connect");
	return fd;
}

static void one_event(struct pair *pair)
{
	struct ibv_cq *cq;
	void *context;
	struct ibv_wc wc;

	require(!ibv_get_cq_event(pair->channel, &cq, &context) && cq == pair->receives, "get_cq_event");
	ibv_ack_cq_events(cq, 1);
	require(!ibv_req_notify_cq(cq, 0), "req_notify_cq");
	int count = ibv_poll_cq(cq, 1, &wc);
	require(count >= 0, "poll_cq");
	if (!count) {
		puts("an event too many");
		return;
	}
	require(wc.status == IBV_WC_SUCCESS, ibv_wc_status_str(wc.status));
	pair->turns++;
	receive(pair);
	answer(pair);
}

int main(int argc, char **argv)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct pollfd waited[PAIRS];
	struct end mine, other;
	unsigned int since[PAIRS] = { 0 };
	int begins = argc == 3, counts = 0;
	char ready_too;

	setvbuf(stdout, NULL, _IOLBF, 0);
	struct ibv_context *context = list && *list ? ibv_open_device(*list) : NULL;
	struct ibv_pd *pd = context ? ibv_alloc_pd(context) : NULL;
	require(pd && !ibv_query_gid(context, 1, GID_INDEX, &mine.gid), "open_device");
	sends = ibv_create_cq(context, 32 * PAIRS, NULL, NULL, 0);
	require(sends != NULL, "create_cq");
	for (int i = 0; i < PAIRS; i++) {
		make(context, pd, &pairs[i]);
		mine.qpns[i] = pairs[i].qp->qp_num;
		waited[i] = (struct pollfd){ .fd = pairs[i].channel->fd, .events = POLLIN };
	}
	signal(SIGUSR1, on_sigusr1);
	int fd = meet(begins ? argv[2] : NULL);
	require(write(fd, &mine, sizeof(mine)) == sizeof(mine) && recv(fd, &other, sizeof(other), MSG_WAITALL) == sizeof(other), "meet");
	for (int i = 0; i < PAIRS; i++)
		connect_to(&pairs[i], &other, other.qpns[i]);
	require(write(fd, "", 1) == 1 && read(fd, &ready_too, 1) == 1, "meet");
	close(fd);
	puts("connected");
	for (int i = 0; begins && i < PAIRS; i++)
		answer(&pairs[i]);
	for (;;) {
		int ready = poll(waited, PAIRS, -1), all = 1;

		require(ready >= 0 || errno == EINTR, "poll");
		for (int i = 0; ready > 0 && i < PAIRS; i++)
			if (waited[i].revents)
				one_event(&pairs[i]);
		for (int i = 0; asked && i < PAIRS; i++)
			since[i] = pairs[i].turns;
		counts |= asked;
		asked = 0;
		for (int i = 0; i < PAIRS; i++)
			all &= pairs[i].turns - since[i] >= TURNS;
		if (counts && all) {
			printf("turns %d\n", TURNS);
			counts = 0;
		}
	}
}
