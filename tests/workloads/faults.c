/*
 * Broken hardware: a library to preload, which falsifies what goes through an ibv_context, once.
 *
 *	FAULT=NAME[:NTH]	which fault, at which occasion (the first 100th)
 *
 *	drop-send-completion, drop-receive-completion	a completion vanishes
 *	repeat-completion	a completion comes twice
 *	wrong-wr-id, wrong-qp-num, wrong-imm		a completion is falsified
 *	repeat-send		a SEND goes out twice
 *	repeat-write-imm	a WRITE_WITH_IMM goes out twice
 *	double-add		a FETCH_ADD adds twice
 *	lose-send		an unsignalled SEND vanishes
 *	lose-write		a WRITE goes out without its bytes
 *	flip-send, flip-write	a bit is flipped in what goes out
 *	flip-read		a bit is flipped in what a READ brought
 *	stray-write		a WRITE goes 8 bytes too far
 *	drop-all-completions	nothing completes any more
 *	lose-events		no completion event comes any more
 *	jumping-clock		the monotonic clock jumps forth and back by a week, every second
 *
 * It says on stderr when it strikes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WEEK (7 * 24 * 3600)

static struct ibv_context_ops real;
static const char *fault = "";
static long wait_for = 100;
static bool done;

/* Both ends may live in one process: only one context, the first, is broken. */
static struct ibv_context *broken;

/* READs that have been posted, to find their memory at completion. */
static struct {
	uint64_t wr_id;
	void *memory;
} reads[1024];
static unsigned reads_posted;

static bool is_due(const char *name)
{
	return !done && !strcmp(fault, name) && --wait_for <= 0;
}

static void strike(void)
{
	done = true;
	fprintf(stderr, "faults: %s\n", fault);
}

static bool strikes(const char *name)
{
	if (!is_due(name))
		return false;
	strike();
	return true;
}

/* As strikes, and for ever after. */
static bool persists(const char *name)
{
	return strikes(name) || (done && !strcmp(fault, name));
}

static bool is_receive(const struct ibv_wc *wc)
{
	return wc->opcode & IBV_WC_RECV;
}

/* Where the content of READ wr_id went. */
static void *memory_of(uint64_t wr_id)
{
	for (unsigned i = 0; i < 1024; i++)
		if (reads[i].memory && reads[i].wr_id == wr_id)
			return reads[i].memory;
	return NULL;
}

/* True: the completion is to vanish. */
static bool falsify(struct ibv_wc *wc)
{
	if (persists("drop-all-completions"))
		return true;
	if (!is_receive(wc) && strikes("drop-send-completion"))
		return true;
	if (is_receive(wc) && strikes("drop-receive-completion"))
		return true;
	if (strikes("wrong-wr-id"))
		wc->wr_id ^= 1ull << 40;
	if (strikes("wrong-qp-num"))
		wc->qp_num ^= 1;
	if (wc->wc_flags & IBV_WC_WITH_IMM && strikes("wrong-imm"))
		wc->imm_data ^= 0x100;
	if (wc->opcode == IBV_WC_RDMA_READ && memory_of(wc->wr_id) && strikes("flip-read"))
		((uint8_t *)memory_of(wc->wr_id))[9] ^= 0x10;
	return false;
}

static int poll_cq(struct ibv_cq *cq, int entries, struct ibv_wc *wc)
{
	static struct ibv_wc again;
	static struct ibv_cq *again_of;
	int count, kept = 0;

	if (cq->context != broken)
		return real.poll_cq(cq, entries, wc);
	if (again_of == cq && entries > 0) {
		again_of = NULL;
		*wc = again;
		return 1;
	}
	count = real.poll_cq(cq, entries, wc);
	for (int i = 0; i < count; i++) {
		if (falsify(&wc[i]))
			continue;
		wc[kept++] = wc[i];
		if (strikes("repeat-completion")) {
			again = wc[kept - 1];
			again_of = cq;
		}
	}
	return count < 0 ? count : kept;
}

static int req_notify_cq(struct ibv_cq *cq, int solicited_only)
{
	if (cq->context == broken && persists("lose-events"))
		return 0;
	return real.req_notify_cq(cq, solicited_only);
}

static uint8_t *last_byte(const struct ibv_send_wr *wr)
{
	const struct ibv_sge *last = &wr->sg_list[wr->num_sge - 1];

	return (uint8_t *)(uintptr_t)last->addr + last->length - 1;
}

/* Whether it is to go out again, if the queue has room; else the next one. */
static bool repeats(const struct ibv_send_wr *wr)
{
	return (wr->opcode == IBV_WR_SEND && is_due("repeat-send")) ||
	       (wr->opcode == IBV_WR_RDMA_WRITE_WITH_IMM && is_due("repeat-write-imm"));
}

static void falsify_send(struct ibv_send_wr *wr)
{
	bool is_send = wr->opcode == IBV_WR_SEND, is_write = wr->opcode == IBV_WR_RDMA_WRITE;

	if ((is_send && strikes("flip-send")) || (is_write && strikes("flip-write")))
		*last_byte(wr) ^= 4;
	if (wr->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD && strikes("double-add"))
		wr->wr.atomic.compare_add *= 2;
	if (is_write && strikes("lose-write"))
		wr->num_sge = 0;
	if (is_write && strikes("stray-write"))
		wr->wr.rdma.remote_addr += 8;
	/* Something has to take its place in the queue; that nobody sees the completion of. */
	if (is_send && !(wr->send_flags & IBV_SEND_SIGNALED) && strikes("lose-send")) {
		wr->opcode = IBV_WR_RDMA_WRITE;
		wr->num_sge = 0;
		wr->wr.rdma.remote_addr = 0;
		wr->wr.rdma.rkey = 0;
	}
}

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct ibv_send_wr *list = wr, *last = wr;
	int error;

	if (qp->context != broken)
		return real.post_send(qp, wr, bad);
	for (; wr; wr = wr->next) {
		if (wr->opcode == IBV_WR_RDMA_READ) {
			unsigned place = reads_posted++ % 1024;

			reads[place].wr_id = wr->wr_id;
			reads[place].memory = (void *)(uintptr_t)wr->sg_list[0].addr;
		}
		falsify_send(wr);
		last = wr;
	}
	error = real.post_send(qp, list, bad);
	if (!error && repeats(last)) {
		struct ibv_send_wr copy = *last;

		/* Nobody gets a completion of it. */
		copy.send_flags &= ~(unsigned)IBV_SEND_SIGNALED;
		if (!real.post_send(qp, &copy, bad))
			strike();
	}
	return error;
}

/* What goes out twice takes a place of its own, which the application does not know of. */
struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
	struct ibv_qp *(*create_qp)(struct ibv_pd *, struct ibv_qp_init_attr *);

	*(void **)&create_qp = dlsym(RTLD_NEXT, "ibv_create_qp");
	attr->cap.max_send_wr += 4;
	return create_qp(pd, attr);
}

struct ibv_context *ibv_open_device(struct ibv_device *device)
{
	struct ibv_context *(*open_device)(struct ibv_device *);
	struct ibv_context *context;
	char *colon;

	*(void **)&open_device = dlsym(RTLD_NEXT, "ibv_open_device");
	context = open_device(device);
	if (!context || broken || !getenv("FAULT"))
		return context;
	fault = strdup(getenv("FAULT"));
	colon = strchr(fault, ':');
	if (colon) {
		*colon = 0;
		wait_for = atol(colon + 1);
	}
	broken = context;
	real = context->ops;
	context->ops.poll_cq = poll_cq;
	context->ops.req_notify_cq = req_notify_cq;
	context->ops.post_send = post_send;
	return context;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
	int result = (int)syscall(SYS_clock_gettime, clock, time);
	const char *name = getenv("FAULT");

	if (!result && clock == CLOCK_MONOTONIC && name && !strcmp(name, "jumping-clock") && time->tv_sec & 1)
		time->tv_sec += WEEK;
	return result;
}
