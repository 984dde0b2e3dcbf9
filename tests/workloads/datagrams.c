/*
 * Questions and answers by datagrams, one at a time, each numbered.
 *
 *	datagrams serve [built]			answers one partner
 *	datagrams ask ADDRESS [built]		the partner, of the server there
 *
 * By ibv_post_send, or built by ibv_wr_*.
 *
 * Each end knows the other by what it was told at first, and says "stranger" of whatever comes from anybody else. The one that
 * asks waits for every answer, and prints "answers: N" after every 20. From SIGUSR1 on it goes on after a tenth of a second
 * without one; from SIGUSR2 on, once one has come, it waits again and prints "lost: N", which is how many never came until then.
 * An answer that comes twice, or to what was never asked, it says as well.
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

#include "built.h"

#define PORT 18702
#define GID_INDEX 1
#define QKEY 0x7654
#define SLOT 64
#define RECEIVES 32
#define MOST (1u << 20)

struct hello {
	union ibv_gid gid;
	uint32_t qpn;
};

struct slot {
	struct ibv_grh grh;
	uint32_t number;
	uint32_t rest[(SLOT - 44) / 4];
};

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_qp *qp;
static struct ibv_mr *mr;
static struct {
	struct slot received[RECEIVES];
	uint32_t sent;
} *memory;
static struct hello mine, theirs;
static int is_built;
static int under_way; /* a send, whose completion has not been seen */
static char answered[MOST];
static volatile sig_atomic_t impatient, is_to_wait_again;

static void require(int holds, const char *what)
{
	if (holds)
		return;
	printf("failed: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void listen_at(uint64_t slot)
{
	struct ibv_sge sge = { (uintptr_t)&memory->received[slot], sizeof(struct slot), mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = slot, .sg_list = &sge, .num_sge = 1 }, *bad;

	require(!ibv_post_recv(qp, &wr, &bad), "post_recv");
}

static void make_queues(void)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = QKEY };

	require((cq = ibv_create_cq(context, 2 * RECEIVES, NULL, NULL, 0)) != NULL, "create_cq");
	struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_UD, .cap = { 8, RECEIVES, 1, 1, 0 } };
	require((qp = (is_built ? create_to_build : ibv_create_qp)(pd, &init)) != NULL, "create_qp");
	require(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY), "INIT");
	for (int i = 0; i < RECEIVES; i++)
		listen_at((uint64_t)i);
	attr.qp_state = IBV_QPS_RTR;
	require(!ibv_modify_qp(qp, &attr, IBV_QP_STATE), "RTR");
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS };
	require(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN), "RTS");
	mine.qpn = qp->qp_num;
	require(!ibv_query_gid(context, 1, GID_INDEX, &mine.gid), "query_gid");
}

static void meet(int connection)
{
	require(write(connection, &mine, sizeof(mine)) == sizeof(mine), "write");
	require(recv(connection, &theirs, sizeof(theirs), MSG_WAITALL) == sizeof(theirs), "read");
	close(connection);
}

static struct ibv_ah *handle(void)
{
	struct ibv_ah_attr attr = { .is_global = 1, .port_num = 1,
				    .grh = { .dgid = theirs.gid, .sgid_index = GID_INDEX, .hop_limit = 64 } };
	struct ibv_ah *ah = ibv_create_ah(pd, &attr);

	require(ah != NULL, "create_ah");
	return ah;
}

static void send_to(struct ibv_ah *ah, uint32_t qpn, uint32_t number)
{
	struct ibv_sge sge = { (uintptr_t)&memory->sent, sizeof(memory->sent), mr->lkey };
	struct ibv_send_wr wr = { .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED,
				  .wr.ud = { ah, qpn, QKEY } }, *bad;

	memory->sent = number;
	require(!post_built(qp, &wr, &bad), "post_send");
	under_way = 1;
}

/* Whether a datagram has come: of a send only note is taken. */
static int poll_one(struct ibv_wc *wc)
{
	int count = ibv_poll_cq(cq, 1, wc);
	struct ibv_ah_attr attr;

	require(count >= 0 && (!count || wc->status == IBV_WC_SUCCESS), "a completion");
	if (!count || !(wc->opcode & IBV_WC_RECV)) {
		under_way = count ? 0 : under_way;
		return 0;
	}
	require(wc->byte_len == sizeof(struct ibv_grh) + sizeof(uint32_t), "its length");
	require(!ibv_init_ah_from_wc(context, 1, wc, &memory->received[wc->wr_id].grh, &attr), "init_ah_from_wc");
	if (wc->src_qp == theirs.qpn && !memcmp(&attr.grh.dgid, &theirs.gid, sizeof(theirs.gid)) &&
	    attr.grh.sgid_index == GID_INDEX)
		return 1;
	printf("stranger: QP 0x%x\n", wc->src_qp);
	listen_at(wc->wr_id);
	return 0;
}

static void serve(void)
{
	struct sockaddr_in name = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
	struct ibv_ah *ah = NULL, *former;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	require(!bind(listener, (struct sockaddr *)&name, sizeof(name)) && !listen(listener, 1), "listen");
	puts("listening");
	meet(accept(listener, NULL, NULL));
	close(listener);
	for (;;) {
		struct ibv_wc wc;

		if (!poll_one(&wc)) {
			usleep(200);
			continue;
		}
		while (under_way) {
			struct ibv_wc done;

			require(!poll_one(&done), "one question at a time");
		}
		former = ah;
		ah = ibv_create_ah_from_wc(pd, &wc, &memory->received[wc.wr_id].grh, 1);
		require(ah != NULL && (!former || !ibv_destroy_ah(former)), "create_ah_from_wc");
		send_to(ah, wc.src_qp, memory->received[wc.wr_id].number);
		listen_at(wc.wr_id);
	}
}

static void take_answer(const struct ibv_wc *wc, uint32_t asked)
{
	uint32_t number = memory->received[wc->wr_id].number;

	if (number > asked || number >= MOST)
		printf("never asked: %u\n", number);
	else if (answered[number]++)
		printf("twice: %u\n", number);
	listen_at(wc->wr_id);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void count_lost(uint32_t asked)
{
	unsigned int lost = 0;

	for (uint32_t i = 0; i <= asked; i++)
		lost += !answered[i];
	impatient = is_to_wait_again = 0;
	printf("lost: %u\n", lost);
}

static void signalled(int signal)
{
	if (signal == SIGUSR1)
		impatient = 1;
	else
		is_to_wait_again = 1;
}

static void ask(const char *address)
{
	struct sockaddr_in name = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int connection = socket(AF_INET, SOCK_STREAM, 0);
	unsigned int answers = 0;

	require(inet_pton(AF_INET, address, &name.sin_addr) == 1, "address");
	require(!connect(connection, (struct sockaddr *)&name, sizeof(name)), "connect");
	meet(connection);
	struct ibv_ah *ah = handle();
	for (uint32_t number = 0; number < MOST; number++) {
		uint64_t began = now_ms();
		struct ibv_wc wc;

		send_to(ah, theirs.qpn, number);
		while (under_way || (!answered[number] && !(impatient && now_ms() - began > 100))) {
			if (poll_one(&wc))
				take_answer(&wc, number);
			else
				usleep(200);
		}
		if (answered[number] && is_to_wait_again)
			count_lost(number);
		if (answered[number] && !(++answers % 20))
			printf("answers: %u\n", answers);
	}
	require(0, "more numbers");
}

int main(int argc, char **argv)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	const struct sigaction action = { .sa_handler = signalled, .sa_flags = SA_RESTART };

	setvbuf(stdout, NULL, _IOLBF, 0);
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGUSR2, &action, NULL);
	is_built = !strcmp(argv[argc - 1], "built");
	argc -= is_built;
	require(list && list[0] && (context = ibv_open_device(list[0])) != NULL, "open_device");
	require((pd = ibv_alloc_pd(context)) != NULL, "alloc_pd");
	require(!posix_memalign((void **)&memory, 4096, sizeof(*memory)), "memory");
	memset(memory, 0, sizeof(*memory));
	require((mr = ibv_reg_mr(pd, memory, sizeof(*memory), IBV_ACCESS_LOCAL_WRITE)) != NULL, "reg_mr");
	make_queues();
	if (argc == 2 && !strcmp(argv[1], "serve"))
		serve();
	else if (argc == 3 && !strcmp(argv[1], "ask"))
		ask(argv[2]);
	return 2;
}
