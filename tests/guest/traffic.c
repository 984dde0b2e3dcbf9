/*
 * An RDMA application that accounts for every completion.
 *
 * Pairs of QPs between two contexts, both directions at once: SEND, SEND_WITH_IMM, WRITE, WRITE_WITH_IMM, READ and
 * FETCH_AND_ADD, signalled and unsignalled, inline and not, one thread per side. Every receive must complete in the
 * order it was posted with the next number of its sender, every signalled send in order, every number exactly once;
 * at the end memory must hold the last write and the exact sum.
 *
 *     traffic [-q pairs] [-e] [-c] [-r] [-t] [-s] [-S] [-w]  -e: completion events, -c: a thread that makes and ends objects,
 *                                                -r: one that makes, connects, uses and ends QPs,
 *                                                -t: two more threads that poll and post on the same queues,
 *                                                -s: no receives on the second side until the command "feed",
 *                                                -S: one shared receive queue per side; with one pair it is in order,
 *                                                -w: sends are posted by ibv_wr_*
 *
 * Commands on stdin, one a line: stop (ends with a verdict), restore, fail NAME NTH ERRNO, drop N, repeat N,
 * numbers DEVICE QPN KEY, made WHAT (how many the device has), raise QPN TYPE (an asynchronous
 * event), events (reads all there are), hold PATH (opens it), release, memory NAME MAPPED (a memfd, which is
 * mapped and stays open). Each is answered by a line.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../workloads/built.h"
#include "reconnects.h"

#define DEPTH 32
#define RECEIVES 64
#define SLOTS 256
#define PATTERN 0x5ca1ab1e0ddba11ull

struct end {
	struct ibv_qp *qp;
	uint32_t number; /* its QPN when it was made */
	struct side *side;
	struct end *peer;
	pthread_mutex_t lock; /* when several threads serve one side */
	uint64_t messages_sent, messages_received; /* what consumes a receive */
	uint64_t receives_posted;
	uint64_t sends_posted, sends_retired;	   /* work requests, by their number */
	uint64_t signalled[SLOTS];		   /* numbers of the signalled ones under way */
	uint64_t signalled_head, signalled_tail;
	uint64_t writes, adds, reads;
	unsigned seed;
	/* Registered memory, this end's part. */
	struct memory {
		uint64_t out[SLOTS];	 /* what is sent, by number */
		uint64_t in[RECEIVES];	 /* what is received */
		uint64_t read_into[SLOTS];
		uint64_t fetched;
		uint64_t written;	 /* the peer writes here */
		uint64_t sum;		 /* and adds here */
		uint64_t pattern;	 /* and reads here */
	} *memory;
	uint64_t last_write_posted;
};

struct side {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_srq *srq;
	uint64_t *shared;	/* by place in memory: which request of the shared queue is there, from 1 on; 0: none */
	uint64_t shared_posted, shared_completed;
	struct ibv_mr *mr;
	struct memory *memory;
	struct end *ends;
	int device;
	int epoll;
	pthread_t threads[3];
};

static struct side sides[2];
static int pairs = 4, use_events, use_churn, use_reconnects, use_threads, use_srq, use_build, starve;
static volatile int stopping, finished;
static char verdict[512];
static pthread_mutex_t verdict_lock = PTHREAD_MUTEX_INITIALIZER;

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void complain(const char *format, ...)
{
	va_list arguments;

	pthread_mutex_lock(&verdict_lock);
	if (!*verdict) {
		va_start(arguments, format);
		vsnprintf(verdict, sizeof(verdict), format, arguments);
		va_end(arguments);
	}
	pthread_mutex_unlock(&verdict_lock);
}

static void die(const char *what)
{
	fprintf(stderr, "traffic: %s: %s\n", what, strerror(errno));
	exit(2);
}

static struct end *end_of(struct side *side, uint32_t qp_num)
{
	for (int i = 0; i < pairs; i++)
		if (side->ends[i].qp->qp_num == qp_num)
			return &side->ends[i];
	return NULL;
}

static void post_shared(struct side *side, unsigned place)
{
	struct ibv_sge sge = { (uintptr_t)&side->memory[place / RECEIVES].in[place % RECEIVES], 8, side->mr->lkey };
	struct ibv_recv_wr wr = { .sg_list = &sge, .num_sge = 1 }, *bad;

	side->shared[place] = ++side->shared_posted;
	wr.wr_id = side->shared_posted << 24 | place << 8 | 1;
	int error = ibv_post_srq_recv(side->srq, &wr, &bad);
	if (error)
		complain("post_srq_recv: %s", strerror(error));
}

/* Where the message is, whose place is free now. */
static unsigned shared_place(struct side *side, const struct ibv_wc *wc)
{
	unsigned place = wc->wr_id >> 8 & 0xffff;
	uint64_t which = wc->wr_id >> 24;

	if ((wc->wr_id & 0xff) != 1 || place >= (unsigned)(pairs * RECEIVES) || !which || side->shared[place] != which) {
		complain("a receive of the shared queue completed as %llx, which is not there", (unsigned long long)wc->wr_id);
		return 0;
	}
	if (pairs == 1 && which != ++side->shared_completed)
		complain("receive %llu of the shared queue completed instead of %llu", (unsigned long long)which,
			 (unsigned long long)side->shared_completed);
	side->shared[place] = 0;
	return place;
}

static void post_receive(struct end *end)
{
	if (use_srq) {
		post_shared(end->side, (unsigned)(end - end->side->ends) * RECEIVES + (unsigned)end->receives_posted++);
		return;
	}
	uint64_t number = end->receives_posted++;
	struct ibv_sge sge = { (uintptr_t)&end->memory->in[number % RECEIVES], 8, end->side->mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = number << 8 | 1, .sg_list = &sge, .num_sge = 1 }, *bad;
	int error = ibv_post_recv(end->qp, &wr, &bad);

	if (error)
		complain("post_recv: %s", strerror(error));
}

/* One list of one to three requests. */
static int post_some(struct end *end)
{
	struct ibv_send_wr wrs[3], *bad;
	struct ibv_sge sges[3];
	int count = 1 + rand_r(&end->seed) % 3, posted = 0;
	uint64_t undo_messages = end->messages_sent, undo_signalled = end->signalled_tail;

	if (end->sends_posted + (uint64_t)count - end->sends_retired > DEPTH)
		return 0;
	for (int i = 0; i < count; i++) {
		struct ibv_send_wr *wr = &wrs[i];
		uint64_t number = end->sends_posted + (uint64_t)i;
		struct ibv_mr *theirs = end->peer->side->mr;
		struct memory *there = end->peer->memory;

		memset(wr, 0, sizeof(*wr));
		wr->wr_id = number << 8;
		wr->next = i + 1 < count ? &wrs[i + 1] : NULL;
		wr->sg_list = &sges[i];
		wr->num_sge = 1;
		sges[i] = (struct ibv_sge){ (uintptr_t)&end->memory->out[number % SLOTS], 8, end->side->mr->lkey };
		switch (rand_r(&end->seed) % 6) {
		case 0:
			wr->opcode = IBV_WR_SEND;
			end->memory->out[number % SLOTS] = end->messages_sent++;
			break;
		case 1:
			wr->opcode = IBV_WR_SEND_WITH_IMM;
			wr->imm_data = htonl((uint32_t)end->messages_sent);
			end->memory->out[number % SLOTS] = end->messages_sent++;
			break;
		case 2:
			wr->opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
			wr->imm_data = htonl((uint32_t)end->messages_sent++);
			end->memory->out[number % SLOTS] = number;
			wr->wr.rdma.remote_addr = (uintptr_t)&there->written;
			wr->wr.rdma.rkey = theirs->rkey;
			end->last_write_posted = number;
			break;
		case 3:
			wr->opcode = IBV_WR_RDMA_WRITE;
			end->memory->out[number % SLOTS] = number;
			wr->wr.rdma.remote_addr = (uintptr_t)&there->written;
			wr->wr.rdma.rkey = theirs->rkey;
			end->last_write_posted = number;
			break;
		case 4:
			wr->opcode = IBV_WR_RDMA_READ;
			sges[i].addr = (uintptr_t)&end->memory->read_into[number % SLOTS];
			end->memory->read_into[number % SLOTS] = 0;
			wr->wr.rdma.remote_addr = (uintptr_t)&there->pattern;
			wr->wr.rdma.rkey = theirs->rkey;
			break;
		default:
			wr->opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
			sges[i].addr = (uintptr_t)&end->memory->fetched;
			wr->wr.atomic.remote_addr = (uintptr_t)&there->sum;
			wr->wr.atomic.compare_add = 3;
			wr->wr.atomic.rkey = theirs->rkey;
			end->adds++;
			break;
		}
		if (wr->opcode != IBV_WR_RDMA_READ && wr->opcode != IBV_WR_ATOMIC_FETCH_AND_ADD &&
		    rand_r(&end->seed) % 3 == 0)
			wr->send_flags |= IBV_SEND_INLINE;
		/* Runs of unsignalled ones, but not longer than half the queue. */
		if (rand_r(&end->seed) % 4 == 0 || number % (DEPTH / 2) == 0) {
			wr->send_flags |= IBV_SEND_SIGNALED;
			end->signalled[end->signalled_tail++ % SLOTS] = number;
		}
		if (rand_r(&end->seed) % 8 == 0)
			wr->send_flags |= IBV_SEND_SOLICITED;
		posted++;
	}
	int error = post_built(end->qp, wrs, &bad);
	if (error) {
		(void)undo_messages, (void)undo_signalled;
		complain("post_send: %s at %d of %d", strerror(error), (int)(bad - wrs), posted);
		return 0;
	}
	/* Inline data has been taken: the application may overwrite it at once. */
	for (int i = 0; i < count; i++)
		if (wrs[i].send_flags & IBV_SEND_INLINE)
			*(uint64_t *)(uintptr_t)sges[i].addr = 0xdeaddeaddeaddeadull;
	end->sends_posted += (uint64_t)count;
	return 1;
}

static void on_completion(struct side *side, const struct ibv_wc *wc)
{
	struct end *end = end_of(side, wc->qp_num);

	if (!end) {
		complain("a completion for QP %u, which is not ours (wr_id %llx)", wc->qp_num,
			 (unsigned long long)wc->wr_id);
		return;
	}
	if (wc->status != IBV_WC_SUCCESS) {
		complain("QP %u: wr %llx: status %d", wc->qp_num, (unsigned long long)wc->wr_id, wc->status);
		return;
	}
	if (wc->opcode & IBV_WC_RECV) {
		uint64_t number = end->messages_received++;
		unsigned place = use_srq ? shared_place(side, wc) : 0;
		uint64_t *in = use_srq ? &side->memory[place / RECEIVES].in[place % RECEIVES]
				       : &end->memory->in[number % RECEIVES];

		if (!use_srq && wc->wr_id != (number << 8 | 1))
			complain("QP %u: receive %llu completed as %llx", wc->qp_num, (unsigned long long)number,
				 (unsigned long long)wc->wr_id);
		if (wc->wc_flags & IBV_WC_WITH_IMM && ntohl(wc->imm_data) != (uint32_t)number)
			complain("QP %u: message %llu carries immediate %u", wc->qp_num, (unsigned long long)number,
				 ntohl(wc->imm_data));
		if (wc->opcode == IBV_WC_RECV && *in != number)
			complain("QP %u: message %llu holds %llx", wc->qp_num, (unsigned long long)number,
				 (unsigned long long)*in);
		if (use_srq)
			post_shared(side, place);
		else
			post_receive(end);
		return;
	}
	if (end->signalled_head == end->signalled_tail) {
		complain("QP %u: a completion of send %llx that nobody waits for", wc->qp_num,
			 (unsigned long long)wc->wr_id);
		return;
	}
	uint64_t number = end->signalled[end->signalled_head++ % SLOTS];
	if (wc->wr_id != number << 8)
		complain("QP %u: send %llx completed instead of %llx", wc->qp_num, (unsigned long long)wc->wr_id,
			 (unsigned long long)number << 8);
	if (wc->opcode == IBV_WC_RDMA_READ && end->memory->read_into[number % SLOTS] != PATTERN)
		complain("QP %u: read %llu brought %llx", wc->qp_num, (unsigned long long)number,
			 (unsigned long long)end->memory->read_into[number % SLOTS]);
	end->sends_retired = number + 1;
}

/* When several threads post, a side's polling and what follows from it is one step, or no order could be checked. */
static pthread_mutex_t side_locks[2] = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER };

static int poll_side(struct side *side)
{
	struct ibv_wc wc[8];
	int lock = (int)(side - sides), count;

	if (use_threads || starve)
		pthread_mutex_lock(&side_locks[lock]);
	count = ibv_poll_cq(side->cq, 8, wc);
	if (count < 0)
		complain("poll_cq: %d", count);
	for (int i = 0; i < count; i++)
		on_completion(side, &wc[i]);
	for (int i = 0; i < pairs && !stopping; i++)
		post_some(&side->ends[i]);
	if (use_threads || starve)
		pthread_mutex_unlock(&side_locks[lock]);
	return count;
}

static void wait_for_event(struct side *side)
{
	struct epoll_event event;
	struct ibv_cq *cq;
	void *context;

	if (ibv_req_notify_cq(side->cq, 0))
		complain("req_notify_cq");
	if (poll_side(side) > 0)
		return;
	/* The side may have nothing under way at the end: look from time to time. */
	if (epoll_wait(side->epoll, &event, 1, 100) <= 0)
		return;
	if (ibv_get_cq_event(side->channel, &cq, &context)) {
		/* Another thread of this side was faster. */
		if (use_threads && errno == EAGAIN)
			return;
		complain("get_cq_event: %s", strerror(errno));
		return;
	}
	if (cq != side->cq || context != side)
		complain("an event of a CQ that is not ours");
	ibv_ack_cq_events(cq, 1);
}

static void *serve(void *argument)
{
	struct side *side = argument;

	while (!finished) {
		if (use_events)
			wait_for_event(side);
		else if (!poll_side(side))
			sched_yield();
	}
	return NULL;
}

static void *churn(void *unused)
{
	static uint64_t memory[64];

	(void)unused;
	while (!finished) {
		struct side *side = &sides[0];
		struct ibv_pd *pd = ibv_alloc_pd(side->context);
		struct ibv_cq *cq = ibv_create_cq(side->context, 16, NULL, NULL, 0);
		struct ibv_mr *mr = pd ? ibv_reg_mr(pd, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE) : NULL;
		struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC,
						 .cap = { 4, 4, 1, 1, 0 } };
		struct ibv_qp *qp = pd && cq ? ibv_create_qp(pd, &init) : NULL;
		struct ibv_wc wc;

		if (!qp || !mr || ibv_poll_cq(cq, 1, &wc))
			complain("churn: %s", strerror(errno));
		/* The numbers of all that is alive are different, moved or not. */
		for (int i = 0; qp && i < pairs; i++)
			if (qp->qp_num == side->ends[i].qp->qp_num)
				complain("churn: QPN %u twice", qp->qp_num);
		if (mr && mr->lkey == side->mr->lkey)
			complain("churn: lkey %u twice", mr->lkey);
		if ((qp && ibv_destroy_qp(qp)) || (mr && ibv_dereg_mr(mr)) || (cq && ibv_destroy_cq(cq)) ||
		    (pd && ibv_dealloc_pd(pd)))
			complain("churn: not destroyed: %s", strerror(errno));
		sched_yield();
	}
	return NULL;
}

static void open_side(struct side *side, int device)
{
	int count;
	struct ibv_device **list = ibv_get_device_list(&count);

	if (!list || count <= device)
		die("no device");
	side->device = device;
	side->context = ibv_open_device(list[device]);
	ibv_free_device_list(list);
	if (!side->context || !(side->pd = ibv_alloc_pd(side->context)))
		die("open");
	side->channel = ibv_create_comp_channel(side->context);
	side->cq = ibv_create_cq(side->context, pairs * (DEPTH + RECEIVES) + 8, side, side->channel, 0);
	side->memory = calloc((size_t)pairs, sizeof(*side->memory));
	side->mr = ibv_reg_mr(side->pd, side->memory, (size_t)pairs * sizeof(*side->memory),
			      IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
				      IBV_ACCESS_REMOTE_ATOMIC);
	if (!side->channel || !side->cq || !side->mr)
		die("objects");
	struct epoll_event event = { .events = EPOLLIN };
	side->epoll = epoll_create1(0);
	if (epoll_ctl(side->epoll, EPOLL_CTL_ADD, side->channel->fd, &event))
		die("epoll");
	if (use_threads && fcntl(side->channel->fd, F_SETFL, O_NONBLOCK))
		die("O_NONBLOCK");
	side->ends = calloc((size_t)pairs, sizeof(*side->ends));
	struct ibv_srq_init_attr shared = { .srq_context = side, .attr = { (uint32_t)(pairs * RECEIVES), 1, 0 } };
	side->shared = calloc((size_t)(pairs * RECEIVES), sizeof(*side->shared));
	if (use_srq && !(side->srq = ibv_create_srq(side->pd, &shared)))
		die("create_srq");
	for (int i = 0; i < pairs; i++) {
		struct ibv_qp_init_attr init = { .send_cq = side->cq, .recv_cq = side->cq, .qp_type = IBV_QPT_RC,
						 .srq = side->srq, .cap = { DEPTH, RECEIVES, 1, 1, 64 } };
		struct end *end = &side->ends[i];

		end->side = side;
		end->peer = &sides[side == sides].ends[i];
		end->memory = &side->memory[i];
		end->memory->pattern = PATTERN;
		end->seed = (unsigned)(i * 2 + (side == sides) + 1);
		end->qp = (use_build ? create_to_build : ibv_create_qp)(side->pd, &init);
		end->number = end->qp ? end->qp->qp_num : 0;
		if (!end->qp || init.cap.max_send_wr != DEPTH)
			die("create_qp");
	}
}

static void connect_end(struct end *end)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1,
				    .qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
						       IBV_ACCESS_REMOTE_ATOMIC };

	if (ibv_modify_qp(end->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS))
		die("INIT");
	for (int i = 0; i < RECEIVES && !(starve && end->side == &sides[1]); i++)
		post_receive(end);
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .max_dest_rd_atomic = 4,
				     .min_rnr_timer = 1, .dest_qp_num = end->peer->qp->qp_num,
				     .rq_psn = end->peer->qp->qp_num ^ 0x111, 
				     .ah_attr = { .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1, .hop_limit = 1 } } };
	if (ibv_query_gid(end->peer->side->context, 1, 1, &attr.ah_attr.grh.dgid))
		die("GID");
	if (ibv_modify_qp(end->qp, &attr,
			  IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				  IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER))
		die("RTR");
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7,
				     .sq_psn = end->qp->qp_num ^ 0x111, .max_rd_atomic = 4 };
	if (ibv_modify_qp(end->qp, &attr,
			  IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
				  IBV_QP_MAX_QP_RD_ATOMIC))
		die("RTS");
}

static int is_complete(void)
{
	for (int s = 0; s < 2; s++)
		for (int i = 0; i < pairs; i++) {
			struct end *end = &sides[s].ends[i];

			if (end->signalled_head != end->signalled_tail ||
			    end->peer->messages_received != end->messages_sent ||
			    end->peer->memory->sum != 3 * end->adds ||
			    (end->last_write_posted && end->peer->memory->written != end->last_write_posted))
				return 0;
		}
	return 1;
}

/* Stops posting, waits for everything under way, and gives the verdict. */
static int settle(void)
{
	struct timespec nap = { 0, 2000000 };
	int tries = 0;

	stopping = 1;
	while (!is_complete() && !*verdict && tries++ < 5000)
		nanosleep(&nap, NULL);
	if (!is_complete())
		for (int s = 0; s < 2; s++)
			for (int i = 0; i < pairs; i++) {
				struct end *end = &sides[s].ends[i];

				if (end->peer->messages_received != end->messages_sent)
					complain("side %d QP %u: %llu messages sent, %llu received", s, end->qp->qp_num,
						 (unsigned long long)end->messages_sent,
						 (unsigned long long)end->peer->messages_received);
				if (end->signalled_head != end->signalled_tail)
					complain("side %d QP %u: send %llu never completed", s, end->qp->qp_num,
						 (unsigned long long)end->signalled[end->signalled_head % SLOTS]);
				if (end->peer->memory->sum != 3 * end->adds)
					complain("side %d QP %u: %llu added, not %llu", s, end->qp->qp_num,
						 (unsigned long long)end->peer->memory->sum / 3,
						 (unsigned long long)end->adds);
				if (end->last_write_posted && end->peer->memory->written != end->last_write_posted)
					complain("side %d QP %u: write %llu is not the last in memory", s,
						 end->qp->qp_num, (unsigned long long)end->last_write_posted);
			}
	/* What comes now is too much. */
	nanosleep(&nap, NULL);
	finished = 1;
	return *verdict != 0;
}

static void *symbol(const char *name)
{
	void *found = dlsym(RTLD_DEFAULT, name);

	if (!found) {
		printf("no %s here\n", name);
		exit(2);
	}
	return found;
}

/* Every asynchronous event there is, as SIDE:NUMBER:TYPE; the number is the QP's place, or "cq". */
static void read_events(void)
{
	for (int s = 0; s < 2; s++) {
		struct side *side = &sides[s];
		struct epoll_event ready;
		struct ibv_async_event event;
		int epoll = epoll_create1(0);

		fcntl(side->context->async_fd, F_SETFL, O_NONBLOCK);
		epoll_ctl(epoll, EPOLL_CTL_ADD, side->context->async_fd, &(struct epoll_event){ .events = EPOLLIN });
		while (epoll_wait(epoll, &ready, 1, 0) == 1) {
			if (ibv_get_async_event(side->context, &event)) {
				printf("an event that cannot be read: %s ", strerror(errno));
				break;
			}
			if (event.event_type == IBV_EVENT_CQ_ERR && event.element.cq == side->cq)
				printf("%d:cq:%d ", s, event.event_type);
			for (int i = 0; event.event_type != IBV_EVENT_CQ_ERR && i < pairs; i++)
				if (event.element.qp == side->ends[i].qp)
					printf("%d:%d:%d ", s, i, event.event_type);
			ibv_ack_async_event(&event);
		}
		if (!ibv_get_async_event(side->context, &event))
			printf("an event that epoll does not know of ");
		close(epoll);
	}
	printf("ok\n");
}

static uint64_t total(void)
{
	uint64_t messages = 0;

	for (int s = 0; s < 2; s++)
		for (int i = 0; i < pairs; i++)
			messages += sides[s].ends[i].messages_received;
	return messages;
}

int main(int argc, char **argv)
{
	char line[256], name[64], path[200];
	int option, a, b, c, held = -1;
	pthread_t churner, reconnecter;
	static struct reconnects reconnects;

	while ((option = getopt(argc, argv, "q:ecrtsSw")) != -1)
		switch (option) {
		case 'q': pairs = atoi(optarg); break;
		case 'e': use_events = 1; break;
		case 'c': use_churn = 1; break;
		case 'r': use_reconnects = 1; break;
		case 't': use_threads = 1; break;
		case 's': starve = 1; break;
		case 'S': use_srq = 1; break;
		case 'w': use_build = 1; break;
		default: return 2;
		}
	open_side(&sides[0], 0);
	open_side(&sides[1], 1);
	for (int s = 0; s < 2; s++)
		for (int i = 0; i < pairs; i++)
			sides[s].ends[i].peer = &sides[!s].ends[i];
	for (int i = 0; i < pairs; i++) {
		connect_end(&sides[0].ends[i]);
		connect_end(&sides[1].ends[i]);
	}
	int each = use_threads ? 3 : 1;
	for (int s = 0; s < 2; s++)
		for (int t = 0; t < each; t++)
			pthread_create(&sides[s].threads[t], NULL, serve, &sides[s]);
	if (use_churn)
		pthread_create(&churner, NULL, churn, NULL);
	reconnects = (struct reconnects){ { sides[0].context, sides[1].context }, &finished, complain, 0 };
	if (use_reconnects)
		pthread_create(&reconnecter, NULL, reconnect, &reconnects);
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "stop\n")) {
			break;
		} else if (!strcmp(line, "restore\n")) {
			((void (*)(void))symbol("fake_restore"))();
		} else if (!strcmp(line, "feed\n")) {
			/* The first of them is consumed at once, and that side's thread posts the next. */
			pthread_mutex_lock(&side_locks[1]);
			for (int i = 0; i < pairs; i++)
				for (int r = 0; r < RECEIVES; r++)
					post_receive(&sides[1].ends[i]);
			pthread_mutex_unlock(&side_locks[1]);
		} else if (sscanf(line, "fail %63s %d %d", name, &a, &b) == 3) {
			((void (*)(const char *, int, int))symbol("fake_fail"))(name, a, b);
		} else if (sscanf(line, "drop %d", &a) == 1) {
			((void (*)(int))symbol("fake_drop_completion"))(a);
		} else if (sscanf(line, "repeat %d", &a) == 1) {
			((void (*)(int))symbol("fake_repeat_send"))(a);
		} else if (sscanf(line, "numbers %d %d %d", &a, &b, &c) == 3) {
			((void (*)(int, uint32_t, uint32_t))symbol("fake_set_numbers"))(a, (uint32_t)b, (uint32_t)c);
		} else if (sscanf(line, "hold %199s", path) == 1) {
			held = open(path, O_RDWR);
			if (held < 0)
				die(path);
		} else if (!strcmp(line, "release\n")) {
			close(held);
		} else if (sscanf(line, "memory %63s %d", name, &a) == 2) {
			held = memfd_create(name, 0);
			if (held < 0 || ftruncate(held, 8192) ||
			    (a && mmap(NULL, 8192, PROT_READ, MAP_SHARED, held, 0) == MAP_FAILED))
				die(name);
			printf("%d\n", held);
			continue;
		} else if (!strcmp(line, "events\n")) {
			read_events();
			continue;
		} else if (sscanf(line, "raise %d %d", &a, &b) == 2) {
			if (!((int (*)(uint32_t, int))symbol("fake_raise"))((uint32_t)a, b)) {
				puts("no such QP");
				continue;
			}
		} else if (sscanf(line, "made %63s", name) == 1) {
			printf("%llu\n", (unsigned long long)((uint64_t (*)(const char *))symbol("fake_count"))(name));
			continue;
		} else if (!strcmp(line, "count\n")) {
			printf("%llu%s%s\n", (unsigned long long)total(), *verdict ? " " : "", verdict);
			continue;
		}
		puts("ok");
	}
	int failed = settle();
	for (int s = 0; s < 2; s++)
		for (int t = 0; t < each; t++)
			pthread_join(sides[s].threads[t], NULL);
	if (use_churn)
		pthread_join(churner, NULL);
	if (use_reconnects)
		pthread_join(reconnecter, NULL);
	if (use_reconnects && !reconnects.rounds)
		complain("reconnects: not one round");
	for (int s = 0; s < 2; s++) {
		struct side *side = &sides[s];
		union ibv_gid gid;

		/* What an application wrote down about itself still holds. */
		if (ibv_query_gid(side->context, 1, 1, &gid) || gid.raw[15] != side->device + 1)
			complain("side %d: its GID changed", s);
		for (int i = 0; i < pairs; i++) {
			struct ibv_qp_attr attr;
			struct ibv_qp_init_attr init;

			if (ibv_query_qp(side->ends[i].qp, &attr, IBV_QP_DEST_QPN | IBV_QP_CAP, &init) ||
			    attr.dest_qp_num != side->ends[i].peer->number || attr.ah_attr.port_num != 1 ||
			    attr.ah_attr.grh.sgid_index != 1 ||
			    attr.ah_attr.grh.dgid.raw[15] != side->ends[i].peer->side->device + 1 ||
			    side->ends[i].qp->qp_num != side->ends[i].number || attr.cap.max_send_wr != DEPTH ||
			    init.send_cq != side->cq || init.srq != side->srq)
				complain("side %d: QP %u is not what it was", s, side->ends[i].qp->qp_num);
			if (ibv_destroy_qp(side->ends[i].qp))
				complain("destroy_qp");
		}
		struct ibv_srq_attr attr;
		unsigned there = 0;

		for (int i = 0; i < pairs * RECEIVES; i++)
			there += side->shared[i] != 0;
		if (use_srq && there != (unsigned)(pairs * RECEIVES))
			complain("side %d: %u receives of the shared queue are left", s, there);
		if (use_srq && (ibv_query_srq(side->srq, &attr) || attr.max_wr != (unsigned)(pairs * RECEIVES)))
			complain("side %d: the shared queue is not what it was", s);
		if (use_srq && ibv_destroy_srq(side->srq))
			complain("destroy_srq");
		if (ibv_destroy_cq(side->cq) || ibv_destroy_comp_channel(side->channel) || ibv_dereg_mr(side->mr) ||
		    ibv_dealloc_pd(side->pd) || ibv_close_device(side->context))
			complain("side %d: its objects cannot be ended", s);
	}
	printf("%s\n", *verdict ? verdict : "exact");
	return failed || *verdict;
}
