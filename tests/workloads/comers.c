/*
 * Connections that are made, used and ended, again and again, by names that were given out long before.
 *
 *	comers serve		offers queue pairs to whoever comes
 *	comers ask ADDRESS...	comes to those there in turn, for ever: a line "round N" for each connection, "lost N" where it did
 *				not come about, as when the other end is away
 *
 * The server looks up its GID once, when it begins, and makes its first queue pairs and all of its memory then. What it tells of
 * them later, after whatever moves, is what it knew then. In a connection each end writes a pattern into the other's memory and
 * says so by a message, reads it back, and the other one compares every byte. Bytes that differ are "wrong", and the end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT 18703
#define GID_INDEX 1
#define SIZE 8192
#define OFFERS 8
#define TURNS 4

struct card {
	union ibv_gid gid;
	uint32_t qpn, rkey;
	uint64_t address;
};

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_mr *mr;
static union ibv_gid gid;
static struct {
	unsigned char from_other[SIZE], mine[SIZE], back[SIZE];
	uint32_t message, heard;
} *memory;
static struct ibv_qp *offers[OFFERS];

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	fflush(stdout);
}

static void require(int holds, const char *what)
{
	if (holds)
		return;
	say("failed: %s: %s", what, strerror(errno));
	exit(1);
}

static struct ibv_qp *make_qp(void)
{
	struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = { 8, 8, 1, 1, 0 } };
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1,
				    .qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ };
	struct ibv_qp *qp = ibv_create_qp(pd, &init);

	require(qp != NULL, "create_qp");
	require(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "INIT");
	return qp;
}

static void begin(void)
{
	struct ibv_device **devices = ibv_get_device_list(NULL);

	require(devices && devices[0] && (context = ibv_open_device(devices[0])) != NULL, "open_device");
	require((pd = ibv_alloc_pd(context)) != NULL, "alloc_pd");
	require((memory = aligned_alloc(4096, (sizeof(*memory) + 4095) & ~4095u)) != NULL, "memory");
	memset(memory, 0, sizeof(*memory));
	mr = ibv_reg_mr(pd, memory, sizeof(*memory), IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ);
	require(mr != NULL, "reg_mr");
	require((cq = ibv_create_cq(context, 64, NULL, NULL, 0)) != NULL, "create_cq");
	require(!ibv_query_gid(context, 1, GID_INDEX, &gid), "query_gid");
	for (int i = 0; i < OFFERS; i++)
		offers[i] = make_qp();
}

/* 0, or an errno. */
static int connect_qp(struct ibv_qp *qp, const struct card *other)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = other->qpn,
				    .max_dest_rd_atomic = 1, .min_rnr_timer = 1,
				    .ah_attr = { .is_global = 1, .port_num = 1,
						 .grh = { .dgid = other->gid, .sgid_index = GID_INDEX, .hop_limit = 64 } } };
	int error = ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
						     IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);

	if (error)
		return error;
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 1 };
	return ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
						IBV_QP_MAX_QP_RD_ATOMIC);
}

static int listen_for_message(struct ibv_qp *qp)
{
	struct ibv_sge sge = { (uintptr_t)&memory->heard, sizeof(memory->heard), mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = 1, .sg_list = &sge, .num_sge = 1 }, *bad;

	return ibv_post_recv(qp, &wr, &bad);
}

/* Waits for completions until as many sends and messages have come. 0, or the status of one that failed. */
static int await(struct ibv_qp *qp, int sends, int messages)
{
	struct ibv_wc wc;

	while (sends || messages) {
		int count = ibv_poll_cq(cq, 1, &wc);

		require(count >= 0, "poll_cq");
		if (!count)
			nanosleep(&(struct timespec){ 0, 50000 }, NULL);
		if (!count || wc.qp_num != qp->qp_num)
			continue;
		if (wc.status != IBV_WC_SUCCESS)
			return (int)wc.status;
		if (wc.opcode & IBV_WC_RECV)
			messages--;
		else
			sends--;
	}
	return 0;
}

static int post(struct ibv_qp *qp, enum ibv_wr_opcode opcode, void *from, uint32_t length, const struct card *other, uint64_t offset)
{
	struct ibv_sge sge = { (uintptr_t)from, length, mr->lkey };
	struct ibv_send_wr wr = { .sg_list = &sge, .num_sge = 1, .opcode = opcode, .send_flags = IBV_SEND_SIGNALED,
				  .wr.rdma = { other->address + offset, other->rkey } }, *bad;

	return ibv_post_send(qp, &wr, &bad);
}

static void fill(unsigned char *bytes, uint32_t seed)
{
	for (uint32_t i = 0; i < SIZE; i++)
		bytes[i] = (unsigned char)((seed * 2654435761u + i * 40503u) >> 13);
}

static void compare(const unsigned char *bytes, uint32_t seed, const char *what)
{
	static unsigned char right[SIZE];

	fill(right, seed);
	for (uint32_t i = 0; i < SIZE; i++)
		if (bytes[i] != right[i]) {
			say("wrong: %s, byte %u is 0x%02x and not 0x%02x", what, i, bytes[i], right[i]);
			exit(1);
		}
}

static int tell(struct ibv_qp *qp, const struct card *other, uint32_t seed)
{
	int error;

	fill(memory->mine, seed);
	memory->message = seed;
	error = post(qp, IBV_WR_RDMA_WRITE, memory->mine, SIZE, other, 0);
	if (!error)
		error = post(qp, IBV_WR_RDMA_READ, memory->back, SIZE, other, 0);
	if (!error)
		error = post(qp, IBV_WR_SEND, &memory->message, sizeof(memory->message), other, 0);
	if (!error)
		error = await(qp, 3, 0);
	if (!error)
		compare(memory->back, seed, "what was read back");
	return error;
}

static int hear(struct ibv_qp *qp, uint32_t *seed)
{
	int error = await(qp, 0, 1);

	if (error)
		return error;
	*seed = memory->heard;
	compare(memory->from_other, *seed, "what was written");
	return listen_for_message(qp);
}

static int talk(struct ibv_qp *qp, const struct card *other, int asks, uint32_t seed)
{
	int error = 0;

	for (int turn = 0; turn < TURNS && !error; turn++) {
		if (asks)
			error = tell(qp, other, seed + (uint32_t)turn);
		if (!error)
			error = hear(qp, &seed);
		if (!error && !asks)
			error = tell(qp, other, seed + 1000);
		if (asks)
			seed -= 1000 + (uint32_t)turn;
	}
	return error;
}

/* However often it is interrupted, as it is by a move. */
static int take(int connection, void *to, size_t length)
{
	size_t got = 0;

	while (got < length) {
		ssize_t more = recv(connection, (char *)to + got, length - got, 0);

		if (more <= 0 && !(more < 0 && errno == EINTR))
			return 0;
		got += more > 0 ? (size_t)more : 0;
	}
	return 1;
}

static int transfer(int connection, const struct card *mine, struct card *theirs)
{
	return send(connection, mine, sizeof(*mine), MSG_NOSIGNAL) == sizeof(*mine) &&
	       take(connection, theirs, sizeof(*theirs));
}

/* Whether both are at the same place. */
static int meet(int connection, char how)
{
	char other;

	return send(connection, &how, 1, MSG_NOSIGNAL) == 1 && take(connection, &other, 1) && other == 'y' && how == 'y';
}

/* What has gone wrong, or NULL. */
static const char *converse(int connection, struct ibv_qp *qp, int asks, uint32_t seed)
{
	struct card mine = { gid, qp->qp_num, mr->rkey, (uintptr_t)memory->from_other }, theirs;
	static char text[100];
	int error;

	if (!transfer(connection, &mine, &theirs))
		return "nobody there";
	require(!listen_for_message(qp), "post_recv");
	error = connect_qp(qp, &theirs);
	if (!meet(connection, error ? 'n' : 'y')) {
		snprintf(text, sizeof(text), "not connected: %s", error ? strerror(error) : "the other end");
		return text;
	}
	error = talk(qp, &theirs, asks, seed);
	if (!error && meet(connection, 'y'))
		return NULL;
	snprintf(text, sizeof(text), "broken: %s", error ? ibv_wc_status_str((enum ibv_wc_status)error) : "the other end");
	return text;
}

static void forget(struct ibv_qp *qp)
{
	struct ibv_wc wc;

	require(!ibv_destroy_qp(qp), "destroy_qp");
	while (ibv_poll_cq(cq, 1, &wc) > 0)
		;
}

static void serve(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1, used = 0;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	require(!bind(listener, (struct sockaddr *)&address, sizeof(address)) && !listen(listener, 64), "listen");
	say("listening");
	for (uint32_t round = 0;; round++) {
		int connection = accept(listener, NULL, NULL);

		if (connection < 0)
			continue;
		struct ibv_qp *qp = used < OFFERS ? offers[used++] : make_qp();
		const char *wrong = converse(connection, qp, 0, 0);
		if (wrong)
			say("lost %u: %s", round, wrong);
		else
			say("served %u", round);
		forget(qp);
		close(connection);
	}
}

static void ask(int count, char **addresses)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	/* TCP asks again ever more seldom for who was away when it asked first, after minutes at last. A new socket asks at once. */
	struct timeval patience = { 5, 0 };
	struct timespec pause = { 0, 300000000 }; /* most of the time nothing is just being made, which would refuse a move */
	int used = 0;

	for (uint32_t round = 0;; round++) {
		int connection = socket(AF_INET, SOCK_STREAM, 0);
		const char *wrong = "nobody there";

		setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
		require(inet_pton(AF_INET, addresses[round % (uint32_t)count], &address.sin_addr) == 1, "address");
		if (!connect(connection, (struct sockaddr *)&address, sizeof(address))) {
			struct ibv_qp *qp = used < OFFERS ? offers[used++] : make_qp();

			wrong = converse(connection, qp, 1, round * 7919 + (uint32_t)getpid());
			forget(qp);
		}
		if (wrong)
			say("lost %u: %s", round, wrong);
		else
			say("round %u", round);
		close(connection);
		nanosleep(&pause, NULL);
	}
}

int main(int argc, char **argv)
{
	begin();
	if (argc == 2 && !strcmp(argv[1], "serve"))
		serve();
	if (argc > 2 && !strcmp(argv[1], "ask"))
		ask(argc - 2, argv + 2);
	return 2;
}
