/*
 * Queue pairs through all their states, one step at a time: a small shell for verbs.
 *
 * There are two sides, 0 and 1, each a device with a completion queue for everything. A queue pair is named by a letter, a
 * memory region by a digit. Commands on stdin, each answered by a line: "ok" or an errno if nothing else is said.
 *
 *     make A SIDE [1]      a QP; its number. With 1 in another protection domain. destroy A
 *     type rc|uc           of the QPs that are made from now on
 *     built 1              their sends are posted by ibv_wr_*
 *     aside A              another thread's ibv_post_send, which must not have to wait
 *     behind A, meet       another thread's ibv_wr_start and ibv_wr_complete, which have to wait; until they are done
 *     begin A, end A, drop A   ibv_wr_start with one send; what it has become: ibv_wr_complete, or ibv_wr_abort
 *     sends A N            N sends in one list
 *     init A, rtr A B, rts A, reset A, err A, sqd A      one change of state; "+" behind the word adds IBV_QP_CUR_STATE
 *     on A                 out of SQD again; on+ A  names the state that it is in
 *     path A B             in SQD: the path to its peer once more
 *     state A              as the device says
 *     recv A N, send A N   N requests, numbered from where the last ones stopped; every send signalled
 *     recv A N threads     by N threads in turn
 *     share SIDE DEPTH     a shared receive queue, of the QPs that are made there from now on; unshare SIDE ends it
 *     shared SIDE N [LIST] N receives of it, in lists of so many; they complete as QP:shared:status:number
 *     short SIDE           one that is too short for a message
 *     limit SIDE N         the event's; limits SIDE: depth, entries and limit as the queue says
 *     refused A            a send that every device refuses
 *     spoilt A             a send from memory that is not registered
 *     region N SIDE [1]    its rkey; "local" behind it: without rights for others, "windows": for windows. free N
 *     pages N SIDE COUNT   a region of that many pages of their own; unmap N FIRST COUNT takes some of them away
 *     reach A N PAGE       a WRITE to one of them; what is there then, which is taken away, by  look N PAGE
 *     write A N [M]        a WRITE to the region N, by the key of M if there is one; its contents are shown, and taken away, by  show N
 *     window N SIDE TYPE   a memory window; its rkey. bind A N M: to the region M, with A;  bind A N: to nothing
 *     invalidate A N       by a request of its side;  send A N away: by a send of the other side. close N
 *     through A M N        a WRITE to the region M, by the key of the window N
 *     poll SIDE [T]        takes everything: QP:send or recv:status:number, and :N if that window was invalidated; or by T threads in turn, one completion each
 *     fast SIDE            polls 2000 times; whether the queue is polled without the guest library's lock then
 *     fast recv A          likewise for posting receives, with as many posts of none
 *     arm SIDE, event SIDE asks for an event; 1 if there is one, which is taken.  arm SIDE 1  of a solicited completion
 *     resize SIDE N        its size then; N is 0: as large as the device has them
 *     marker A             how far the guest library's marker behind its sends is (enum mig_marker)
 *     raise QPN TYPE       an asynchronous event of the device, by its number of the moment
 *     async SIDE           the type of the next one, and whose it is: a QP's letter or "shared"
 *     numbers DEVICE QPN KEY, purge 0|1, local_rkeys 0|1, fail VERB NTH ERRNO, made WHAT
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../workloads/built.h"
#include "shadow/cq.h"
#include "shadow/qp.h"

#define DEPTH 24
#define RECV (1u << 16)
#define SHARED (1u << 17)

static struct side {
	struct ibv_context *context;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_srq *srq;
	unsigned int shared;
	uint32_t srq_number;
	struct domain {
		struct ibv_pd *pd;
		struct ibv_mr *mr; /* of the side's memory */
	} domains[2];
} sides[2];

static struct pair {
	struct ibv_qp *qp;
	struct side *side;
	struct domain *domain;
	uint32_t number; /* also of one that has been destroyed */
	unsigned int sent, received;
} pairs[26];

static struct ibv_mr *regions[10];
static struct ibv_mw *windows[10];
static uint64_t memory[4][64], contents[10];

static struct pair *named(char name)
{
	return &pairs[(name - 'A') % 26];
}

/* The side's first protection domain or its second, which is made when it is first asked for. */
static struct domain *domain_of(struct side *side, int which)
{
	struct domain *domain = &side->domains[which];
	uint64_t *of_side = memory[side - sides];

	if (!domain->pd)
		domain->pd = ibv_alloc_pd(side->context);
	if (!domain->mr)
		domain->mr = ibv_reg_mr(domain->pd, of_side, sizeof(memory[0]) * 3, IBV_ACCESS_LOCAL_WRITE);
	return domain->mr ? domain : NULL;
}

static int open_side(struct side *side, struct ibv_device *device)
{
	side->context = ibv_open_device(device);
	struct domain *domain = domain_of(side, 0);
	side->channel = ibv_create_comp_channel(side->context);
	side->cq = ibv_create_cq(side->context, 256, side, side->channel, 0);
	return side->cq && domain ? 0 : errno;
}

static enum ibv_qp_type type = IBV_QPT_RC;
static int is_built;

static int make(struct pair *pair, int side, int domain)
{
	struct ibv_qp_init_attr init = { .send_cq = sides[side].cq, .recv_cq = sides[side].cq, .qp_type = type,
					 .srq = sides[side].srq,
					 .cap = { DEPTH, DEPTH, 1, 1, 0 } };

	*pair = (struct pair){ .side = &sides[side], .domain = domain_of(&sides[side], domain) };
	if (pair->domain)
		pair->qp = (is_built ? create_to_build : ibv_create_qp)(pair->domain->pd, &init);
	if (!pair->qp)
		return errno;
	pair->number = pair->qp->qp_num;
	printf("%u\n", pair->number);
	return -1;
}

static int change(struct pair *pair, enum ibv_qp_state to, struct pair *peer, int current)
{
	struct ibv_qp_attr attr = { .qp_state = to, .cur_qp_state = pair->qp->state };
	int mask = IBV_QP_STATE | (current ? IBV_QP_CUR_STATE : 0);

	switch (to) {
	case IBV_QPS_INIT:
		attr.port_num = 1;
		attr.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
		mask |= IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
		break;
	case IBV_QPS_RTR:
		attr.path_mtu = IBV_MTU_1024;
		attr.max_dest_rd_atomic = 4;
		attr.dest_qp_num = peer->number;
		attr.rq_psn = peer->number * 7 & 0xffffff;
		attr.ah_attr = (struct ibv_ah_attr){ .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1 } };
		if (ibv_query_gid(peer->side->context, 1, 1, &attr.ah_attr.grh.dgid))
			return EINVAL;
		mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
			IBV_QP_MIN_RNR_TIMER;
		break;
	case IBV_QPS_RTS:
		attr.rnr_retry = 7;
		attr.sq_psn = pair->number * 7 & 0xffffff;
		attr.max_rd_atomic = 4;
		mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;
		break;
	default:
		break;
	}
	if (pair->qp->qp_type == IBV_QPT_UC)
		mask &= ~(IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
			  IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC);
	if (to == IBV_QPS_RESET)
		pair->sent = pair->received = 0;
	return ibv_modify_qp(pair->qp, &attr, mask);
}

static int go_on(struct pair *pair, int current)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RTS, .cur_qp_state = IBV_QPS_SQD, .min_rnr_timer = 3 };

	return ibv_modify_qp(pair->qp, &attr, IBV_QP_STATE | (current ? IBV_QP_CUR_STATE : 0) |
						      (pair->qp->qp_type == IBV_QPT_RC ? IBV_QP_MIN_RNR_TIMER : 0));
}

static int path(struct pair *pair, struct pair *peer)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_SQD,
				    .ah_attr = { .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1 } } };

	if (ibv_query_gid(peer->side->context, 1, 1, &attr.ah_attr.grh.dgid))
		return EINVAL;
	return ibv_modify_qp(pair->qp, &attr, IBV_QP_STATE | IBV_QP_AV);
}

static int state(struct pair *pair)
{
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;
	int error = ibv_query_qp(pair->qp, &attr, IBV_QP_STATE, &init);

	if (error)
		return error;
	printf("%d\n", attr.qp_state);
	return -1;
}

/* Where one of the side's messages comes from or goes to. */
static struct ibv_sge place(struct pair *pair, unsigned int number)
{
	int side = (int)(pair->side - sides);
	unsigned int at = (unsigned int)(pair - pairs) % 4 * 16 + number % 16;

	return (struct ibv_sge){ (uintptr_t)&memory[side][at], 8, pair->domain->mr->lkey };
}

static struct ibv_sge source(struct pair *pair, unsigned int number)
{
	struct ibv_sge sge = place(pair, number);

	sge.addr += 2 * sizeof(memory[0]);
	return sge;
}

static uint64_t wr_id(struct pair *pair, unsigned int number)
{
	return (uint64_t)(pair - pairs) << 32 | number;
}

static int receive(struct pair *pair, int count)
{
	int error = 0;

	while (count-- && !error) {
		struct ibv_sge sge = place(pair, pair->received);
		struct ibv_recv_wr wr = { .wr_id = wr_id(pair, RECV | pair->received), .sg_list = &sge, .num_sge = 1 }, *bad;

		error = ibv_post_recv(pair->qp, &wr, &bad);
		pair->received += !error;
	}
	return error;
}

static int share(struct side *side, int depth)
{
	struct ibv_srq_init_attr init = { .srq_context = side, .attr = { (uint32_t)depth, 1, 0 } };

	side->shared = 0;
	side->srq = ibv_create_srq(domain_of(side, 0)->pd, &init);
	return side->srq ? ibv_get_srq_num(side->srq, &side->srq_number) : errno;
}

static int end_shared(struct side *side)
{
	int error = ibv_destroy_srq(side->srq);

	side->srq = error ? side->srq : NULL;
	return error;
}

static int receive_shared(struct side *side, int count, int list, uint32_t length)
{
	struct ibv_recv_wr wrs[64], *bad;
	struct ibv_sge sges[64];
	int error = 0;

	for (list = list < 1 ? 1 : list > 64 ? 64 : list; count > 0 && !error; count -= list) {
		int some = count < list ? count : list;

		for (int i = 0; i < some; i++) {
			unsigned int number = side->shared + (unsigned int)i;

			sges[i] = (struct ibv_sge){ (uintptr_t)&memory[side - sides][number % 64], length, side->domains[0].mr->lkey };
			wrs[i] = (struct ibv_recv_wr){ .wr_id = SHARED | number, .sg_list = &sges[i], .num_sge = 1,
						       .next = i + 1 < some ? &wrs[i + 1] : NULL };
		}
		error = ibv_post_srq_recv(side->srq, wrs, &bad);
		side->shared += (unsigned int)(error ? bad - wrs : some);
	}
	return error;
}

static int set_limit(struct side *side, int limit)
{
	struct ibv_srq_attr attr = { .srq_limit = (uint32_t)limit };

	return ibv_modify_srq(side->srq, &attr, IBV_SRQ_LIMIT);
}

static int limits(struct side *side)
{
	struct ibv_srq_attr attr;
	uint32_t number;
	int error = ibv_query_srq(side->srq, &attr);

	if (error)
		return error;
	if (ibv_get_srq_num(side->srq, &number) || number != side->srq_number)
		return EBADF;
	printf("%u %u %u\n", attr.max_wr, attr.max_sge, attr.srq_limit);
	return -1;
}

static int post(struct pair *pair, enum ibv_wr_opcode opcode, struct ibv_mr *region, struct ibv_mr *by)
{
	struct ibv_sge sge = source(pair, pair->sent);
	struct ibv_send_wr wr = { .wr_id = wr_id(pair, pair->sent), .sg_list = &sge, .num_sge = 1, .opcode = opcode,
				  .send_flags = IBV_SEND_SIGNALED }, *bad = NULL;

	if (opcode == IBV_WR_RDMA_WRITE)
		*(uint64_t *)(uintptr_t)sge.addr = 4711;
	if (by && !region)
		sge.lkey = 0;
	if (region) {
		wr.wr.rdma.remote_addr = (uintptr_t)region->addr;
		wr.wr.rdma.rkey = by->rkey;
	}
	int error = post_built(pair->qp, &wr, &bad);
	pair->sent += !error;
	return error && bad != &wr ? ENOTRECOVERABLE : error;
}

static int send_some(struct pair *pair, int count)
{
	int error = 0;

	while (count-- && !error)
		error = post(pair, IBV_WR_SEND, NULL, NULL);
	return error;
}

static struct ibv_send_wr one_send(struct pair *pair, struct ibv_sge *sge)
{
	*sge = source(pair, pair->sent);
	return (struct ibv_send_wr){ .wr_id = wr_id(pair, pair->sent++), .sg_list = sge, .num_sge = 1, .opcode = IBV_WR_SEND,
				     .send_flags = IBV_SEND_SIGNALED };
}

static int send_together(struct pair *pair, int count)
{
	struct ibv_send_wr wrs[64], *bad;
	struct ibv_sge sges[64];

	for (int i = 0; i < count && i < 64; i++) {
		wrs[i] = one_send(pair, &sges[i]);
		wrs[i].next = i + 1 < count ? &wrs[i + 1] : NULL;
	}
	int error = post_built(pair->qp, wrs, &bad);
	pair->sent -= error ? (unsigned int)count : 0;
	return error;
}

static int begin(struct pair *pair)
{
	struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(pair->qp);
	struct ibv_sge sge;
	struct ibv_send_wr wr = one_send(pair, &sge);

	ibv_wr_start(ex);
	return !build_one(ex, &wr);
}

static void *post_aside(void *argument)
{
	struct pair *pair = argument;
	struct ibv_sge sge;
	struct ibv_send_wr wr = one_send(pair, &sge), *bad;

	return (void *)(intptr_t)ibv_post_send(pair->qp, &wr, &bad);
}

static int aside(struct pair *pair)
{
	pthread_t thread;
	void *error;

	if (pthread_create(&thread, NULL, post_aside, pair) || pthread_join(thread, &error))
		return EAGAIN;
	return (int)(intptr_t)error;
}

static pthread_t waiting;

static void *build_behind(void *argument)
{
	struct pair *pair = argument;

	return (void *)(intptr_t)(begin(pair) ? EINVAL : ibv_wr_complete(ibv_qp_to_qp_ex(pair->qp)));
}

static int behind(struct pair *pair)
{
	return pthread_create(&waiting, NULL, build_behind, pair);
}

static int meet(void)
{
	void *error;

	return pthread_join(waiting, &error) ? EAGAIN : (int)(intptr_t)error;
}

static int drop(struct pair *pair)
{
	ibv_wr_abort(ibv_qp_to_qp_ex(pair->qp));
	pair->sent--;
	return 0;
}

static int region(int place, int side, int which, int is_local, int has_windows)
{
	int access = IBV_ACCESS_LOCAL_WRITE | (has_windows ? IBV_ACCESS_MW_BIND : 0) | (is_local ? 0 : IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ);
	struct domain *domain = domain_of(&sides[side], which);

	contents[place] = 0;
	regions[place] = domain ? ibv_reg_mr(domain->pd, &contents[place], sizeof(contents[place]), access) : NULL;
	if (!regions[place])
		return errno;
	printf("%u\n", regions[place]->rkey);
	return -1;
}

/* Of a region of pages of its own. */
static uint64_t *page_of(int place, int page)
{
	return (uint64_t *)((char *)regions[place]->addr + page * sysconf(_SC_PAGESIZE));
}

static int region_of_pages(int place, int side, int count)
{
	size_t length = (size_t)(count * sysconf(_SC_PAGESIZE));
	/* Where the kernel puts nothing by itself: what is unmapped stays so. */
	void *where = (void *)((uintptr_t)(2 + place) << 44);
	void *pages = mmap(where, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct domain *domain = domain_of(&sides[side], 0);

	if (pages == MAP_FAILED)
		return errno;
	regions[place] = domain ? ibv_reg_mr(domain->pd, pages, length, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE) : NULL;
	return regions[place] ? 0 : errno;
}

static int reach(struct pair *pair, int place, int page)
{
	struct ibv_mr at = { .addr = page_of(place, page) };

	return post(pair, IBV_WR_RDMA_WRITE, &at, regions[place]);
}

static int look(uint64_t *at)
{
	printf("%llu\n", (unsigned long long)*at);
	*at = 0;
	return -1;
}

static int window(int place, int side, int type)
{
	windows[place] = ibv_alloc_mw(domain_of(&sides[side], 0)->pd, (enum ibv_mw_type)type);
	if (!windows[place])
		return errno;
	printf("%u\n", windows[place]->rkey);
	return -1;
}

static int bind_window(struct pair *pair, struct ibv_mw *mw, struct ibv_mr *region)
{
	struct ibv_mw_bind_info info = { .mr = region, .mw_access_flags = IBV_ACCESS_REMOTE_WRITE };
	struct ibv_send_wr wr = { .wr_id = wr_id(pair, pair->sent), .opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED }, *bad;
	int error;

	if (region) {
		info.addr = (uintptr_t)region->addr;
		info.length = region->length;
	}
	if (mw->type == IBV_MW_TYPE_1) {
		error = ibv_bind_mw(pair->qp, mw, &(struct ibv_mw_bind){ wr.wr_id, IBV_SEND_SIGNALED, info });
	} else {
		wr.bind_mw.mw = mw;
		wr.bind_mw.rkey = ibv_inc_rkey(mw->rkey);
		wr.bind_mw.bind_info = info;
		error = post_built(pair->qp, &wr, &bad);
		if (!error)
			mw->rkey = wr.bind_mw.rkey;
	}
	pair->sent += !error;
	return error;
}

/* With a request of its own side, or with a message to it. */
static int invalidate(struct pair *pair, struct ibv_mw *mw, enum ibv_wr_opcode opcode)
{
	struct ibv_sge sge = source(pair, pair->sent);
	struct ibv_send_wr wr = { .wr_id = wr_id(pair, pair->sent), .opcode = opcode, .send_flags = IBV_SEND_SIGNALED,
				  .sg_list = &sge, .num_sge = opcode == IBV_WR_SEND_WITH_INV }, *bad;

	wr.invalidate_rkey = mw->rkey;
	int error = post_built(pair->qp, &wr, &bad);
	pair->sent += !error;
	return error;
}

static int write_through(struct pair *pair, struct ibv_mr *region, struct ibv_mw *mw)
{
	struct ibv_mr by = { .rkey = mw->rkey };

	return post(pair, IBV_WR_RDMA_WRITE, region, &by);
}

static void tell_window(const struct ibv_wc *wc)
{
	for (int i = 0; i < 10; i++)
		if (wc->status == IBV_WC_SUCCESS && wc->wc_flags & IBV_WC_WITH_INV && windows[i] &&
		    windows[i]->rkey == wc->invalidated_rkey)
			printf(":%d", i);
}

static void tell(const struct ibv_wc *wc)
{
	unsigned int name = (unsigned int)(wc->wr_id >> 32), number = (unsigned int)wc->wr_id;

	if (number & SHARED && !name) {
		for (name = 0; name < 26; name++)
			if (pairs[name].qp && pairs[name].number == wc->qp_num)
				printf("%c:shared:%d:%u ", 'A' + (int)name, wc->status, number & ~SHARED);
		return;
	}
	if (name >= 26 || pairs[name].number != wc->qp_num)
		printf("QP %u, which is nobody's wr_id %llx ", wc->qp_num, (unsigned long long)wc->wr_id);
	else {
		printf("%c:%s:%d:%u", 'A' + (int)name, number & RECV ? "recv" : "send", wc->status, number & ~RECV);
		tell_window(wc);
		putchar(' ');
	}
}

/* Threads that poll a queue in turn, each until it has found something. */
static struct turns {
	struct side *side;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int whose, threads;
} turns = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

/* Also what it posts, if a QP is named. */
static struct pair *posts_in_turn;

static void *take_a_turn(void *argument)
{
	int me = (int)(intptr_t)argument;
	struct ibv_wc wc;

	pthread_mutex_lock(&turns.lock);
	while (turns.whose != me)
		pthread_cond_wait(&turns.changed, &turns.lock);
	if (posts_in_turn)
		receive(posts_in_turn, 1);
	else if (ibv_poll_cq(turns.side->cq, 1, &wc) == 1)
		tell(&wc);
	turns.whose++;
	pthread_cond_broadcast(&turns.changed);
	while (turns.whose < turns.threads)
		pthread_cond_wait(&turns.changed, &turns.lock);
	pthread_mutex_unlock(&turns.lock);
	return NULL;
}

static int poll_side(struct side *side, int threads)
{
	pthread_t made[32];
	struct ibv_wc wc;

	if (threads > 32)
		return EINVAL;
	if (!threads)
		while (ibv_poll_cq(side->cq, 1, &wc) == 1)
			tell(&wc);
	turns.side = side;
	turns.whose = 0;
	turns.threads = threads;
	for (int i = 0; i < threads; i++)
		pthread_create(&made[i], NULL, take_a_turn, (void *)(intptr_t)i);
	for (int i = 0; i < threads; i++)
		pthread_join(made[i], NULL);
	return 0;
}

static int receive_in_turn(struct pair *pair, int threads)
{
	posts_in_turn = pair;
	int error = poll_side(pair->side, threads);
	posts_in_turn = NULL;
	return error;
}

/* What the guest library alone knows. */
static int polls_fast(struct side *side)
{
	struct ibv_wc wc;

	for (int i = 0; i < 2000; i++)
		ibv_poll_cq(side->cq, 1, &wc);
	printf("%d\n", ((struct mig_cq *)side->cq)->fast != NULL);
	return -1;
}

static int posts_fast(struct pair *pair)
{
	struct ibv_recv_wr *bad;

	for (int i = 0; i < 2000; i++)
		ibv_post_recv(pair->qp, NULL, &bad);
	printf("%d\n", ((struct mig_qp *)pair->qp)->recv_fast != NULL);
	return -1;
}

static int marker(struct pair *pair)
{
	printf("%d\n", *(volatile enum mig_marker *)&((struct mig_qp *)pair->qp)->marker);
	return -1;
}

static int event(struct side *side)
{
	struct pollfd wanted = { .fd = side->channel->fd, .events = POLLIN };
	struct ibv_cq *cq;
	void *context;
	int there = poll(&wanted, 1, 0) == 1 && !ibv_get_cq_event(side->channel, &cq, &context);

	if (there)
		ibv_ack_cq_events(cq, 1);
	printf("%d\n", there);
	return -1;
}

static int resize(struct side *side, int entries)
{
	struct ibv_device_attr attr;
	int error = ibv_query_device(side->context, &attr);

	if (!error)
		error = ibv_resize_cq(side->cq, entries ? entries : attr.max_cqe);
	if (!error)
		printf("%d of %d\n", side->cq->cqe, attr.max_cqe);
	return error ? error : -1;
}

static int async(struct side *side)
{
	struct pollfd wanted = { .fd = side->context->async_fd, .events = POLLIN };
	struct ibv_async_event event;

	if (poll(&wanted, 1, 0) != 1 || ibv_get_async_event(side->context, &event))
		return ENOENT;
	ibv_ack_async_event(&event);
	printf("%d", event.event_type);
	if (event.event_type == IBV_EVENT_SRQ_LIMIT_REACHED || event.event_type == IBV_EVENT_SRQ_ERR)
		printf(" %s", event.element.srq == side->srq && side->srq->srq_context == side ? "shared" : "nobody's");
	for (int i = 0; event.event_type == IBV_EVENT_QP_LAST_WQE_REACHED && i < 26; i++)
		if (pairs[i].qp == event.element.qp)
			printf(" %c", 'A' + i);
	puts("");
	return -1;
}

#define HARDWARE(type, name) ((type)(uintptr_t)dlsym(RTLD_DEFAULT, name))

/* -1: it has answered already. */
static int obey(const char *line)
{
	static const struct {
		const char *word;
		enum ibv_qp_state to;
	} changes[] = { { "init", IBV_QPS_INIT }, { "rtr", IBV_QPS_RTR }, { "rts", IBV_QPS_RTS },
			{ "reset", IBV_QPS_RESET }, { "err", IBV_QPS_ERR }, { "sqd", IBV_QPS_SQD } };
	char word[32] = "", name, peer = 'A';
	int a, b = 0, c = 0;

	sscanf(line, "%31s %c %c", word, &name, &peer);
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		size_t length = strlen(changes[i].word);

		if (!strncmp(word, changes[i].word, length) && (!word[length] || !strcmp(word + length, "+")))
			return change(named(name), changes[i].to, named(peer), word[length] == '+');
	}
	if (sscanf(line, "make %c %d %d", &name, &a, &b) >= 2)
		return make(named(name), a, b);
	if (sscanf(line, "destroy %c", &name) == 1)
		return ibv_destroy_qp(named(name)->qp);
	if (sscanf(line, "on+ %c", &name) == 1)
		return go_on(named(name), 1);
	if (sscanf(line, "on %c", &name) == 1)
		return go_on(named(name), 0);
	if (sscanf(line, "path %c %c", &name, &peer) == 2)
		return path(named(name), named(peer));
	if (sscanf(line, "state %c", &name) == 1)
		return state(named(name));
	if (sscanf(line, "recv %c %d threads", &name, &a) == 2 && strstr(line, "threads"))
		return receive_in_turn(named(name), a);
	if (sscanf(line, "recv %c %d", &name, &a) == 2)
		return receive(named(name), a);
	if (sscanf(line, "window %d %d %d", &a, &b, &c) == 3)
		return window(a, b, c);
	if (sscanf(line, "bind %c %d %d", &name, &a, &b) == 3)
		return bind_window(named(name), windows[a], regions[b]);
	if (sscanf(line, "bind %c %d", &name, &a) == 2)
		return bind_window(named(name), windows[a], NULL);
	if (sscanf(line, "invalidate %c %d", &name, &a) == 2)
		return invalidate(named(name), windows[a], IBV_WR_LOCAL_INV);
	if (sscanf(line, "through %c %d %d", &name, &a, &b) == 3)
		return write_through(named(name), regions[a], windows[b]);
	if (sscanf(line, "close %d", &a) == 1)
		return ibv_dealloc_mw(windows[a]);
	if (sscanf(line, "send %c %d", &name, &a) == 2 && strstr(line, "away"))
		return invalidate(named(name), windows[a], IBV_WR_SEND_WITH_INV);
	if (sscanf(line, "send %c %d", &name, &a) == 2)
		return send_some(named(name), a);
	if (sscanf(line, "share %d %d", &a, &b) == 2)
		return share(&sides[a], b);
	if (sscanf(line, "unshare %d", &a) == 1)
		return end_shared(&sides[a]);
	if (sscanf(line, "shared %d %d %d", &a, &b, &c) >= 2)
		return receive_shared(&sides[a], b, c, 8);
	if (sscanf(line, "short %d", &a) == 1)
		return receive_shared(&sides[a], 1, 1, 4);
	if (sscanf(line, "limit %d %d", &a, &b) == 2)
		return set_limit(&sides[a], b);
	if (sscanf(line, "limits %d", &a) == 1)
		return limits(&sides[a]);
	if (sscanf(line, "refused %c", &name) == 1)
		return post(named(name), (enum ibv_wr_opcode)77, NULL, NULL);
	if (sscanf(line, "spoilt %c", &name) == 1)
		return post(named(name), IBV_WR_SEND, NULL, named(name)->domain->mr);
	if (sscanf(line, "built %d", &is_built) == 1)
		return 0;
	if (sscanf(line, "sends %c %d", &name, &a) == 2)
		return send_together(named(name), a);
	if (sscanf(line, "aside %c", &name) == 1)
		return aside(named(name));
	if (sscanf(line, "behind %c", &name) == 1)
		return behind(named(name));
	if (!strncmp(line, "meet", 4))
		return meet();
	if (sscanf(line, "begin %c", &name) == 1)
		return begin(named(name));
	if (sscanf(line, "end %c", &name) == 1)
		return ibv_wr_complete(ibv_qp_to_qp_ex(named(name)->qp));
	if (sscanf(line, "drop %c", &name) == 1)
		return drop(named(name));
	if (sscanf(line, "type %31s", word) == 1)
		return type = strcmp(word, "uc") ? IBV_QPT_RC : IBV_QPT_UC, 0;
	if (sscanf(line, "region %d %d %d", &a, &b, &c) >= 2)
		return region(a, b, c, strstr(line, "local") != NULL, strstr(line, "windows") != NULL);
	if (sscanf(line, "free %d", &a) == 1)
		return ibv_dereg_mr(regions[a]);
	if (sscanf(line, "write %c %d %d", &name, &a, &b) == 3)
		return post(named(name), IBV_WR_RDMA_WRITE, regions[a], regions[b]);
	if (sscanf(line, "write %c %d", &name, &a) == 2)
		return post(named(name), IBV_WR_RDMA_WRITE, regions[a], regions[a]);
	if (sscanf(line, "pages %d %d %d", &a, &b, &c) == 3)
		return region_of_pages(a, b, c);
	if (sscanf(line, "unmap %d %d %d", &a, &b, &c) == 3)
		return munmap(page_of(a, b), (size_t)(c * sysconf(_SC_PAGESIZE))) ? errno : 0;
	if (sscanf(line, "reach %c %d %d", &name, &a, &b) == 3)
		return reach(named(name), a, b);
	if (sscanf(line, "look %d %d", &a, &b) == 2)
		return look(page_of(a, b));
	if (sscanf(line, "show %d", &a) == 1)
		return printf("%llu\n", (unsigned long long)contents[a]), contents[a] = 0, -1;
	if (sscanf(line, "poll %d %d", &a, &b) >= 1)
		return poll_side(&sides[a], b);
	if (sscanf(line, "marker %c", &name) == 1)
		return marker(named(name));
	if (sscanf(line, "fast recv %c", &name) == 1)
		return posts_fast(named(name));
	if (sscanf(line, "fast %d", &a) == 1)
		return polls_fast(&sides[a]);
	if (sscanf(line, "arm %d %d", &a, &b) >= 1)
		return ibv_req_notify_cq(sides[a].cq, b);
	if (sscanf(line, "resize %d %d", &a, &b) == 2)
		return resize(&sides[a], b);
	if (sscanf(line, "event %d", &a) == 1)
		return event(&sides[a]);
	if (sscanf(line, "numbers %d %d %d", &a, &b, &c) == 3)
		return HARDWARE(void (*)(int, uint32_t, uint32_t), "fake_set_numbers")(a, (uint32_t)b, (uint32_t)c), 0;
	if (sscanf(line, "made %31s", word) == 1)
		return printf("%llu\n", (unsigned long long)HARDWARE(uint64_t (*)(const char *), "fake_count")(word)), -1;
	if (sscanf(line, "raise %d %d", &a, &b) == 2)
		return HARDWARE(int (*)(uint32_t, int), "fake_raise")((uint32_t)a, b) ? 0 : ENOENT;
	if (sscanf(line, "async %d", &a) == 1)
		return async(&sides[a]);
	if (sscanf(line, "purge %d", &a) == 1)
		return HARDWARE(void (*)(int), "fake_purge")(a), 0;
	if (sscanf(line, "local_rkeys %d", &a) == 1)
		return HARDWARE(void (*)(int), "fake_local_rkeys")(a), 0;
	if (sscanf(line, "fail %31s %d %d", word, &a, &b) == 3)
		return HARDWARE(void (*)(const char *, int, int), "fake_fail")(word, a, b), 0;
	return ENOTRECOVERABLE;
}

int main(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	char line[80];

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!list || open_side(&sides[0], list[0]) || open_side(&sides[1], list[1]))
		return 1;
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		int error = obey(line);

		if (!error)
			puts("ok");
		else if (error > 0)
			puts(strerrorname_np(error));
	}
	return 0;
}
