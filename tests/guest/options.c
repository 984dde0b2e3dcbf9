/*
 * What a connection may be given besides its attributes, and the domains that its objects may be made in. The connection is one
 * with itself; its queues are in a parent domain with a thread domain and with allocators of the program's.
 *
 * Commands on stdin, each answered by "ok" or by what is wrong unless something else is said:
 *     send            a message and a WRITE to itself, of new contents, whose completions and contents must be right
 *     moderate N, limit N, ece    as ibv_modify_cq, ibv_modify_qp_rate_limit, ibv_set_ece
 *     shown           the moderation and the rate that the real objects have
 *     owned           how often the allocator was asked and given back
 *     again PLACE     the region is registered anew: of the other memory, in the plain domain or with fewer rights
 *     null            sends from a null region
 *     device N        puts N into device memory, at first; then what is there goes to itself by its key, and must be N
 *     regions         from regions of all kinds of memory: ordered as the device likes, read-only, of huge pages
 *     demand          from memory that is mapped after it was registered, and from all memory there is, both paged on demand
 *     paged DEVICE N  whether that device pages on demand
 *     event N         as if N threads had taken an event, and not acknowledged it yet
 *     restore, end
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shadow/cq.h"
#include "shadow/mr.h"
#include "shadow/qp.h"
#include "soft.h"

static struct ibv_context *context;
static struct ibv_pd *plain, *domain;
static struct ibv_td *td;
static struct ibv_cq *cq;
static struct ibv_mr *mr, *target, *dm_mr;
static struct ibv_dm *dm;
static struct ibv_qp *qp;
static char memory[2][4096], there[4096], *here = memory[0];
static int asked, returned;
static const char owner[] = "of the program";

#define NEED(condition)                                                                                    \
	do {                                                                                               \
		if (!(condition)) {                                                                        \
			printf("line %d: %s: %s\n", __LINE__, #condition, strerror(errno));                \
			return -1;                                                                         \
		}                                                                                          \
	} while (0)

static void *give(struct ibv_pd *pd, void *pd_context, size_t size, size_t alignment, uint64_t type)
{
	(void)type;
	if (pd != domain && domain)
		abort();
	if (pd_context != owner)
		abort();
	asked++;
	return aligned_alloc(alignment, size);
}

static void take(struct ibv_pd *pd, void *pd_context, void *pointer, uint64_t type)
{
	(void)type;
	if (pd != domain || pd_context != owner)
		abort();
	returned++;
	free(pointer);
}

static int open_all(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	NEED(context = ibv_open_device(list[0]));
	NEED(plain = ibv_alloc_pd(context));
	NEED(td = ibv_alloc_td(context, &(struct ibv_td_init_attr){ 0 }));
	struct ibv_parent_domain_init_attr parent = {
		.pd = plain, .td = td, .alloc = give, .free = take, .pd_context = (void *)(uintptr_t)owner,
		.comp_mask = IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS | IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT,
	};
	NEED(domain = ibv_alloc_parent_domain(context, &parent));
	struct ibv_cq_init_attr_ex queue = { .cqe = 16, .parent_domain = domain, .wc_flags = IBV_WC_STANDARD_FLAGS,
					     .comp_mask = IBV_CQ_INIT_ATTR_MASK_PD };
	struct ibv_cq_ex *ex = ibv_create_cq_ex(context, &queue);
	NEED(ex && (cq = ibv_cq_ex_to_cq(ex)));
	NEED(mr = ibv_reg_mr(domain, here, 4096, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE));
	NEED(target = ibv_reg_mr(plain, there, 4096, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE));
	struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = { 4, 4, 1, 1, 0 } };
	NEED(qp = ibv_create_qp(domain, &init));
	/* What is in use is not ended. */
	NEED(ibv_dealloc_td(td) && ibv_dealloc_pd(plain));

	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = IBV_ACCESS_REMOTE_WRITE };
	NEED(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = qp->qp_num,
				     .ah_attr = { .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1 } } };
	NEED(!ibv_query_gid(context, 1, 1, &attr.ah_attr.grh.dgid));
	NEED(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
					       IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER));
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7 };
	NEED(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
					       IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC));
	ibv_free_device_list(list);
	return 0;
}

static int complete(int left)
{
	struct ibv_wc wc;

	while (left) {
		int count = ibv_poll_cq(cq, 1, &wc);

		NEED(count >= 0);
		if (count && wc.status != IBV_WC_SUCCESS) {
			printf("%d of %d: %s\n", (int)wc.wr_id, left, ibv_wc_status_str(wc.status));
			return -1;
		}
		left -= count;
	}
	return 0;
}

static int pass(struct ibv_mr *from, char *source, enum ibv_wr_opcode opcode)
{
	struct ibv_sge sge = { (uintptr_t)source, 64, from->lkey }, into = { (uintptr_t)there + 64, 64, target->lkey };
	struct ibv_recv_wr recv = { .wr_id = 1, .sg_list = &into, .num_sge = 1 }, *bad_recv;
	struct ibv_send_wr send = { .wr_id = 2, .sg_list = &sge, .num_sge = 1, .opcode = opcode,
				    .send_flags = IBV_SEND_SIGNALED }, *bad_send;

	send.wr.rdma.remote_addr = (uintptr_t)there + 64;
	send.wr.rdma.rkey = target->rkey;
	memset(there, 0x55, sizeof(there));
	if (opcode == IBV_WR_SEND)
		NEED(!ibv_post_recv(qp, &recv, &bad_recv));
	NEED(!ibv_post_send(qp, &send, &bad_send));
	if (complete(opcode == IBV_WR_SEND ? 2 : 1))
		return -1;
	NEED(!memcmp(there + 64, source, 64) && there[63] == 0x55 && there[128] == 0x55);
	return 0;
}

static int traffic(void)
{
	static int turn;

	for (int i = 0; i < 2; i++) {
		memset(here, ++turn, 64);
		if (pass(mr, here, i ? IBV_WR_RDMA_WRITE : IBV_WR_SEND))
			return -1;
	}
	/* And into the region by the key that others have. */
	if (!mr->rkey)
		return 0;
	struct ibv_sge sge = { (uintptr_t)there, 64, target->lkey };
	struct ibv_send_wr send = { .wr_id = 3, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE,
				    .send_flags = IBV_SEND_SIGNALED }, *bad;
	send.wr.rdma.remote_addr = (uintptr_t)here + 128;
	send.wr.rdma.rkey = mr->rkey;
	memset(there, ++turn, 64);
	NEED(!ibv_post_send(qp, &send, &bad));
	if (complete(1))
		return -1;
	NEED(!memcmp(here + 128, there, 64));
	return 0;
}

static int again(const char *what)
{
	int flags = 0, access = 0;

	if (!strcmp(what, "memory"))
		flags = IBV_REREG_MR_CHANGE_TRANSLATION, here = memory[here == memory[0]];
	else if (!strcmp(what, "domain"))
		flags = IBV_REREG_MR_CHANGE_PD;
	else
		flags = IBV_REREG_MR_CHANGE_ACCESS, access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
	NEED(!ibv_rereg_mr(mr, flags, flags == IBV_REREG_MR_CHANGE_PD ? plain : NULL,
			   flags == IBV_REREG_MR_CHANGE_TRANSLATION ? here : NULL,
			   flags == IBV_REREG_MR_CHANGE_TRANSLATION ? 4096 : 0, access));
	return 0;
}

static int from_nothing(void)
{
	static struct ibv_mr *nothing;
	static char zeros[64];
	if (!nothing)
		NEED(nothing = ibv_alloc_null_mr(plain));
	/* The stand-in's is a page somewhere. */
	if (pass(nothing, MIG_CONTAINER(nothing, struct mig_mr, ibv)->real->addr, IBV_WR_RDMA_WRITE))
		return -1;
	NEED(!memcmp(there + 64, zeros, 64));
	return 0;
}

/* Written by the program, moved by the device within it, and read by the program. */
static int through_device_memory(uint32_t number, int is_written)
{
	struct ibv_alloc_dm_attr attr = { .length = 256 };
	uint32_t read = 0, nothing = 0;

	if (!dm) {
		NEED(dm = ibv_alloc_dm(context, &attr));
		NEED(dm_mr = ibv_reg_dm_mr(plain, dm, 128, 64, IBV_ACCESS_ZERO_BASED | IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE));
	}
	if (is_written)
		NEED(!ibv_memcpy_to_dm(dm, 128, &number, sizeof(number)) && !ibv_memcpy_to_dm(dm, 0, &number, sizeof(number)));
	struct ibv_sge sge = { 0, 4, dm_mr->lkey };
	struct ibv_send_wr send = { .wr_id = 4, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE,
				    .send_flags = IBV_SEND_SIGNALED }, *bad;
	send.wr.rdma.remote_addr = 32;
	send.wr.rdma.rkey = dm_mr->rkey;
	NEED(!ibv_memcpy_to_dm(dm, 160, &nothing, sizeof(nothing)) && !ibv_post_send(qp, &send, &bad));
	if (complete(1))
		return -1;
	NEED(!ibv_memcpy_from_dm(&read, dm, 160, sizeof(read)) && read == number);
	NEED(!ibv_memcpy_from_dm(&read, dm, 0, sizeof(read)) && read == number);
	NEED(ibv_memcpy_from_dm(&read, dm, 253, sizeof(read)) && ibv_free_dm(dm));
	return 0;
}

/* Registered once; then it is there, and has the very rights that it was asked for, whatever device it is on. */
static int from(struct ibv_mr **region, void *at, size_t length, unsigned int access)
{
	if (!*region)
		NEED(*region = ibv_reg_mr(domain, at, length, (int)access));
	const struct soft_mr *real = (struct soft_mr *)MIG_CONTAINER(*region, struct mig_mr, ibv)->real;
	NEED(real->access == access && real->ibv.addr == at && real->ibv.length == length);
	return pass(*region, at ? at : here, IBV_WR_RDMA_WRITE) || pass(*region, at ? at : here, IBV_WR_SEND) ? -1 : 0;
}

#define HUGE_PAGE (2ul << 20)

static int from_all_kinds(void)
{
	static struct ibv_mr *ordered, *constant, *huge;
	static char *page, *pages;
	static int turn;

	if (!page) {
		NEED((page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) != MAP_FAILED);
		memset(page, 0x17, 4096);
		NEED(!mprotect(page, 4096, PROT_READ));
		NEED(!posix_memalign((void **)&pages, HUGE_PAGE, HUGE_PAGE));
		madvise(pages, HUGE_PAGE, MADV_HUGEPAGE);
	}
	memset(memory[1], ++turn, 64);
	memset(pages, turn, HUGE_PAGE);
	if (from(&ordered, memory[1], 4096, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_RELAXED_ORDERING) || from(&constant, page, 4096, 0))
		return -1;
	return from(&huge, pages, HUGE_PAGE, IBV_ACCESS_LOCAL_WRITE);
}

static int from_memory_on_demand(void)
{
	static struct ibv_mr *late, *all;
	static char *page;

	if (!page)
		NEED((page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) != MAP_FAILED);
	if (!late)
		NEED(late = ibv_reg_mr(domain, page, 4096, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ON_DEMAND));
	NEED(!mprotect(page, 4096, PROT_READ | PROT_WRITE));
	memset(page, 0x23, 64);
	if (from(&late, page, 4096, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ON_DEMAND))
		return -1;
	NEED(!munmap(page, 4096) && mmap(page, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page);
	return from(&all, NULL, SIZE_MAX, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ON_DEMAND);
}

static int end_all(void)
{
	NEED(!dm || (!ibv_dereg_mr(dm_mr) && !ibv_free_dm(dm)));
	NEED(!ibv_destroy_qp(qp) && !ibv_destroy_cq(cq) && !ibv_dereg_mr(mr) && !ibv_dereg_mr(target));
	NEED(!ibv_dealloc_pd(domain) && !ibv_dealloc_td(td) && !ibv_dealloc_pd(plain) && !ibv_close_device(context));
	return 0;
}

static int shown(void)
{
	const struct soft_cq *real_cq = (struct soft_cq *)MIG_CONTAINER(cq, struct mig_cq, ibv)->real;
	const struct soft_qp *real_qp = (struct soft_qp *)MIG_CONTAINER(qp, struct mig_qp, ibv)->real;

	printf("%u %u\n", real_cq->moderation.cq_count, real_qp->rate.rate_limit);
	return -1;
}

static int owned(void)
{
	printf("%d %d\n", asked, returned);
	return -1;
}

static int answer(const char *line)
{
	char word[16];
	unsigned int number;
	int has;

	if (!strcmp(line, "send"))
		return traffic();
	if (sscanf(line, "moderate %u", &number) == 1)
		return ibv_modify_cq(cq, &(struct ibv_modify_cq_attr){ IBV_CQ_ATTR_MODERATE, { (uint16_t)number, 1 } });
	if (sscanf(line, "limit %u", &number) == 1)
		return ibv_modify_qp_rate_limit(qp, &(struct ibv_qp_rate_limit_attr){ .rate_limit = number });
	if (!strcmp(line, "ece"))
		return ibv_set_ece(qp, &(struct ibv_ece){ 0 });
	if (!strcmp(line, "shown"))
		return shown();
	if (!strcmp(line, "owned"))
		return owned();
	if (sscanf(line, "again %15s", word) == 1)
		return again(word);
	if (sscanf(line, "device %u again", &number) == 1)
		return through_device_memory(number, !strstr(line, "again"));
	if (sscanf(line, "event %u", &number) == 1)
		return MIG_CONTAINER(context, struct mig_context, verbs.context)->in_events = number, 0;
	if (!strcmp(line, "regions"))
		return from_all_kinds();
	if (!strcmp(line, "demand"))
		return from_memory_on_demand();
	if (sscanf(line, "paged %u %d", &number, &has) == 2)
		return ((void (*)(int, int))(uintptr_t)dlsym(RTLD_DEFAULT, "fake_on_demand"))((int)number, has), 0;
	if (!strcmp(line, "null"))
		return from_nothing();
	if (!strcmp(line, "restore"))
		return ((void (*)(void))(uintptr_t)dlsym(RTLD_DEFAULT, "fake_restore"))(), 0;
	return end_all();
}

int main(void)
{
	char line[64];

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (open_all())
		return 1;
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		int error = answer(line);

		if (error >= 0)
			puts(error ? strerror(error) : "ok");
	}
	return 0;
}
