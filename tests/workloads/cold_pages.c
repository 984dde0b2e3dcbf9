/*
 * Memory that only the other end's device writes to: of every kind, each page once in a long while.
 *
 *	cold_pages ADDRESS	the writer: writes a number to one page after the other of each kind by RDMA WRITE, remembers
 *				which, and after SIGTERM reads all of them by RDMA READ; says what differs, or "cold_pages: ok"
 *	cold_pages		the memory; says "memory is ready", and touches no page of it any more
 *
 * They meet at TCP port 18600, once: the connection is closed before anything is written.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE (8u << 20)
#define HUGE (2u << 20)
#define PAGE 4096
#define PAGES (SIZE / PAGE)
#define PORT 18600
#define PAUSE_US 10000

enum kind { SMALL, THP, SHARED, MEMFD, HUGETLB, KINDS };
static const char *const names[KINDS] = { "private, 4 KB", "transparent huge", "shared", "memfd", "hugetlbfs" };

/* What each end tells the other. */
struct place {
	union ibv_gid gid;
	uint32_t qpn;
	uint64_t memory[KINDS];
	uint32_t rkeys[KINDS];
};

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_qp *qp;
static struct place here, there;
static volatile sig_atomic_t stopped;

static void require(int holds, const char *what)
{
	if (holds)
		return;
	printf("cold_pages: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
}

static void open_device(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	require(list && list[0] && (context = ibv_open_device(list[0])), "opening a device");
	ibv_free_device_list(list);
	require((pd = ibv_alloc_pd(context)) && (cq = ibv_create_cq(context, 16, NULL, NULL, 0)), "making a PD and a CQ");
	struct ibv_qp_init_attr init = { .qp_type = IBV_QPT_RC, .send_cq = cq, .recv_cq = cq, .cap = { 16, 1, 1, 1, 0 } };

	require((qp = ibv_create_qp(pd, &init)) != NULL, "making a QP");
	here.qpn = qp->qp_num;
	require(!ibv_query_gid(context, 1, 0, &here.gid), "asking for a GID");
}

/* The first IPv4 one of RoCE v2, as the emulated hosts have it; the software device has another one, and only that. */
static int gid_index(void)
{
	struct ibv_gid_entry entry;

	for (uint32_t index = 0; index < 16; index++)
		if (!ibv_query_gid_ex(context, 1, index, &entry, 0) && entry.gid_type == IBV_GID_TYPE_ROCE_V2 &&
		    entry.gid.raw[10] == 0xff && entry.gid.raw[11] == 0xff) {
			here.gid = entry.gid;
			return (int)index;
		}
	return 0;
}

static void *get_memory(enum kind kind)
{
	void *memory = NULL;
	int fd = -1;

	switch (kind) {
	case SMALL:
	case THP:
		require(!posix_memalign(&memory, HUGE, SIZE), "memory");
		madvise(memory, SIZE, kind == THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
		break;
	case SHARED:
		memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		break;
	case MEMFD:
		require((fd = memfd_create("cold", 0)) >= 0 && !ftruncate(fd, SIZE), "memfd_create");
		memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		close(fd);
		break;
	default:
		memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	}
	require(memory != MAP_FAILED, names[kind]);
	memset(memory, 0x55, SIZE);
	return memory;
}

/* What is to be huge must be, or nothing is shown. */
static void require_huge(const void *memory)
{
	char line[256];
	unsigned long start, end, huge = 0;
	int inside = 0;
	FILE *file = fopen("/proc/self/smaps", "r");

	require(file != NULL, "smaps");
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start <= (uintptr_t)memory && (uintptr_t)memory < end;
		else if (inside && sscanf(line, "AnonHugePages: %lu kB", &huge) == 1)
			break;
	}
	fclose(file);
	errno = ENOTSUP;
	require(huge * 1024 >= SIZE, "transparent huge pages");
}

static void connect_qp(int index)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1,
				    .qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ };

	require(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "INIT");
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = there.qpn,
				     .max_dest_rd_atomic = 1, .min_rnr_timer = 12,
				     .ah_attr = { .is_global = 1, .port_num = 1,
						  .grh = { .dgid = there.gid, .sgid_index = (uint8_t)index, .hop_limit = 64 } } };
	require(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
						  IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER), "RTR");
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .max_rd_atomic = 1, .timeout = 16, .retry_cnt = 7, .rnr_retry = 7 };
	require(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_TIMEOUT |
						  IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY), "RTS");
}

static void exchange(int fd, int index)
{
	require(write(fd, &here, sizeof(here)) == (ssize_t)sizeof(here), "telling the other end");
	require(recv(fd, &there, sizeof(there), MSG_WAITALL) == (ssize_t)sizeof(there), "hearing the other end");
	connect_qp(index);
	/* Both ends can receive before either sends. */
	char ready = 1;

	require(write(fd, &ready, 1) == 1 && recv(fd, &ready, 1, MSG_WAITALL) == 1, "waiting for the other end");
	close(fd);
}

static int be_memory(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int index = gid_index(), on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

	for (int kind = 0; kind < KINDS; kind++) {
		void *memory = get_memory((enum kind)kind);
		struct ibv_mr *mr = ibv_reg_mr(pd, memory, SIZE,
					       IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ);

		require(mr != NULL, "registering memory");
		if (kind == THP)
			require_huge(memory);
		here.memory[kind] = (uintptr_t)memory;
		here.rkeys[kind] = mr->rkey;
	}
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	require(!bind(listener, (struct sockaddr *)&address, sizeof(address)) && !listen(listener, 1), "listening");
	printf("listening\n");
	int fd = accept(listener, NULL, NULL);

	require(fd >= 0, "accept");
	close(listener);
	exchange(fd, index);
	printf("memory is ready\n");
	for (unsigned int second = 0; !stopped; second++) {
		printf("%u s\n", second);
		sleep(1);
	}
	return 0;
}

static void carry_out(enum ibv_wr_opcode opcode, uint32_t *word, uint32_t lkey, int kind, unsigned int page)
{
	struct ibv_sge sge = { (uintptr_t)word, sizeof(*word), lkey };
	struct ibv_send_wr wr = { .opcode = opcode, .sg_list = &sge, .num_sge = 1, .send_flags = IBV_SEND_SIGNALED,
				  .wr.rdma = { there.memory[kind] + (uint64_t)page * PAGE, there.rkeys[kind] } }, *bad;
	struct ibv_wc wc;
	int error = ibv_post_send(qp, &wr, &bad), count = 0;

	errno = error;
	require(!error, "posting");
	while (!(count = ibv_poll_cq(cq, 1, &wc)))
		usleep(50);
	require(count == 1 && wc.status == IBV_WC_SUCCESS, ibv_wc_status_str(wc.status));
}

static int be_writer(const char *host)
{
	static uint32_t last[KINDS][PAGES], word;
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int index = gid_index(), fd = socket(AF_INET, SOCK_STREAM, 0), different = 0;
	struct ibv_mr *mr = ibv_reg_mr(pd, &word, sizeof(word), IBV_ACCESS_LOCAL_WRITE);

	require(mr != NULL && inet_pton(AF_INET, host, &address.sin_addr) == 1, "registering a word");
	for (int tries = 0; connect(fd, (struct sockaddr *)&address, sizeof(address)); tries++) {
		require(tries < 600, "connecting");
		usleep(100000);
	}
	exchange(fd, index);
	for (uint32_t number = 1; !stopped; number++) {
		/* All over the memory: neighbours are written long after each other. */
		unsigned int page = number * 797 % PAGES;

		for (int kind = 0; kind < KINDS; kind++) {
			last[kind][page] = word = number;
			carry_out(IBV_WR_RDMA_WRITE, &word, mr->lkey, kind, page);
		}
		if (number % 100 == 0)
			printf("%u written\n", number);
		usleep(PAUSE_US);
	}
	for (int kind = 0; kind < KINDS; kind++) {
		int here_different = 0;

		for (unsigned int page = 0; page < PAGES; page++) {
			carry_out(IBV_WR_RDMA_READ, &word, mr->lkey, kind, page);
			if (word == (last[kind][page] ? last[kind][page] : 0x55555555))
				continue;
			if (!here_different++)
				printf("%s: page %u has %u and not %u\n", names[kind], page, word, last[kind][page]);
		}
		if (here_different)
			printf("%s: %d pages are not as they were written\n", names[kind], here_different);
		different += here_different;
	}
	if (!different)
		printf("cold_pages: ok\n");
	return different != 0;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGTERM, stop);
	signal(SIGINT, stop);
	open_device();
	return argc > 1 ? be_writer(argv[1]) : be_memory();
}
