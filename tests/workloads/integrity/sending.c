/* Posts the operations of a QP's stream and judges their completions. */
#include <inttypes.h>
#include <string.h>

#include "../built.h"
#include "content.h"
#include "lane.h"

#define LIST 4

struct request {
	struct ibv_send_wr wr;
	struct ibv_sge sges[2];
};

static uint8_t *slot_of(const struct run *run, const struct lane *lane, uint64_t number)
{
	return lane->out.slots + number % run->options.depth * run->options.size;
}

/* Where the counter of a QP or the shared one is, or a ring or board slot, in the other end's memory. */
static uint64_t remote_address(const struct run *run, const struct lane *lane, const struct operation *operation)
{
	const struct options *options = &run->options;
	uint64_t base = run->there.memory + lane->index * lane_size(options);

	if (operation->kind == WRITE_WITH_IMM)
		return base + ring_offset(options, operation->ordinal);
	if (operation->kind != FETCH_ADD)
		return base + board_offset(options, operation->ordinal);
	if (operation->shared)
		return run->there.memory + options->qps * lane_size(options);
	return base + counter_offset(options);
}

static void prepare(struct run *run, struct lane *lane, const struct operation *operation, struct request *request)
{
	static const enum ibv_wr_opcode opcodes[KINDS] = {
		IBV_WR_SEND, IBV_WR_SEND_WITH_IMM, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM,
		IBV_WR_RDMA_READ, IBV_WR_ATOMIC_FETCH_AND_ADD
	};
	uint8_t *slot = slot_of(run, lane, operation->number);
	uint32_t lkey = run->device.sent.mr->lkey, first = operation->first_sge;
	bool fetches = operation->kind == READ || operation->kind == FETCH_ADD;
	struct ibv_send_wr *wr = &request->wr;

	memset(request, 0, sizeof(*request));
	blank(slot, run->options.size);
	if (!fetches)
		content_fill(slot, operation);
	request->sges[0] = (struct ibv_sge){ (uintptr_t)slot, first ? first : operation->length, lkey };
	request->sges[1] = (struct ibv_sge){ (uintptr_t)slot + first, operation->length - first, lkey };
	wr->wr_id = make_wr_id(SENT, lane, operation->number);
	wr->sg_list = request->sges;
	wr->num_sge = first ? 2 : 1;
	wr->opcode = opcodes[operation->kind];
	if (run->options.xrc)
		wr->qp_type.xrc.remote_srqn = run->there.srqn;
	wr->imm_data = has_imm(operation) ? operation->imm : 0;
	if (operation->signalled)
		wr->send_flags |= IBV_SEND_SIGNALED;
	if (operation->solicited && is_message(operation))
		wr->send_flags |= IBV_SEND_SOLICITED;
	if (operation->may_inline && !fetches && operation->length <= lane->pair.max_inline)
		wr->send_flags |= IBV_SEND_INLINE;
	if (operation->kind == FETCH_ADD) {
		wr->wr.atomic.remote_addr = remote_address(run, lane, operation);
		wr->wr.atomic.compare_add = operation->addend;
		wr->wr.atomic.rkey = run->there.rkey;
	} else if (operation->kind != SEND && operation->kind != SEND_WITH_IMM) {
		wr->wr.rdma.remote_addr = remote_address(run, lane, operation);
		wr->wr.rdma.rkey = run->there.rkey;
	}
}

/* A READ that is sent again by the transport must find what it found: its slot is written anew only after it. */
static bool must_wait(const struct lane *lane, const struct operation *operation)
{
	return operation->kind == WRITE && operation->ordinal >= lane->out.reads_done + BOARD;
}

static bool wants_more(const struct run *run, const struct lane *lane)
{
	uint64_t share = (run->options.operations + run->options.qps - 1) / run->options.qps;

	return !run->stopping && (!run->options.operations || lane->out.posted < share);
}

/*
 * The last operation of all is a signalled message: when it has completed at both ends, everything before it has,
 * and all its bytes are in memory.
 */
static bool takes_next(const struct run *run, struct lane *lane, unsigned count)
{
	struct sender *out = &lane->out;

	if (out->closed || out->posted + count == out->retired + run->options.depth || must_wait(lane, &out->next))
		return false;
	if (!wants_more(run, lane) && is_message(&out->next)) {
		out->next.signalled = true;
		out->closed = true;
	}
	return true;
}

bool post_sends(struct run *run, struct lane *lane)
{
	struct sender *out = &lane->out;
	struct request requests[LIST];
	struct ibv_send_wr *bad;
	/* Lists of one to four, without a pattern. */
	unsigned most = 1 + (unsigned)(scramble(out->posted) % LIST), count = 0;
	int error;

	while (count < most && takes_next(run, lane, count)) {
		out->under_way[out->next.number % run->options.depth] = out->next;
		prepare(run, lane, &out->next, &requests[count]);
		if (count)
			requests[count - 1].wr.next = &requests[count].wr;
		out->next = stream_next(&out->stream);
		count++;
	}
	if (!count)
		return false;
	error = post_built(lane->pair.qp, &requests[0].wr, &bad);
	if (error)
		lane_fail(run, lane, "posting operation %" PRIu64 ": %s", number_of(&(struct ibv_wc){ .wr_id = bad->wr_id }),
			  strerror(error));
	/* Inline data has been taken: the memory is the application's again. */
	for (unsigned i = 0; i < count; i++)
		if (requests[i].wr.send_flags & IBV_SEND_INLINE)
			blank(slot_of(run, lane, out->posted + i), run->options.size);
	out->posted += count;
	return true;
}

static void check_read(struct run *run, struct lane *lane, const struct operation *operation)
{
	const struct operation *written = &lane->out.written[operation->ordinal % BOARD];
	const uint8_t *slot = slot_of(run, lane, operation->number);
	char why[200];
	size_t where;

	lane->out.reads_done++;
	if (!content_is(slot, operation->length, written, why, sizeof(why)))
		lane_fail(run, lane, "READ (operation %" PRIu64 ") of what WRITE (operation %" PRIu64 ") wrote: %s",
			  operation->number, written->number, why);
	else if (!is_blank(slot + operation->length, run->options.size - operation->length, &where))
		lane_fail(run, lane, "READ (operation %" PRIu64 ") of %" PRIu32 " bytes changed byte %zu",
			  operation->number, operation->length, operation->length + where);
}

static void check_fetched(struct run *run, struct lane *lane, const struct operation *operation)
{
	struct sender *out = &lane->out;
	uint64_t fetched;

	memcpy(&fetched, slot_of(run, lane, operation->number), sizeof(fetched));
	if (!operation->shared) {
		if (fetched != out->sum)
			lane_fail(run, lane, "FETCH_ADD (operation %" PRIu64 ") found a sum of %" PRIu64 ", not %" PRIu64,
				  operation->number, fetched, out->sum);
		out->sum += operation->addend;
	} else {
		/* All QPs add here, in any order: it never gets less. */
		if (fetched < out->shared_least)
			lane_fail(run, lane,
				  "FETCH_ADD (operation %" PRIu64 ") found a shared sum of %" PRIu64 ", less than %" PRIu64,
				  operation->number, fetched, out->shared_least);
		out->shared_least = fetched + operation->addend;
	}
}

static void retire(struct run *run, struct lane *lane, const struct operation *operation)
{
	struct sender *out = &lane->out;

	if (operation->kind == WRITE)
		out->written[operation->ordinal % BOARD] = *operation;
	else if (operation->kind == READ)
		check_read(run, lane, operation);
	else if (operation->kind == FETCH_ADD)
		check_fetched(run, lane, operation);
	out->by_kind[operation->kind]++;
	out->retired++;
	run->operations++;
}

void on_sent(struct run *run, const struct ibv_wc *wc)
{
	static const enum ibv_wc_opcode opcodes[KINDS] = { IBV_WC_SEND, IBV_WC_SEND, IBV_WC_RDMA_WRITE,
							   IBV_WC_RDMA_WRITE, IBV_WC_RDMA_READ, IBV_WC_FETCH_ADD };
	struct lane *lane = lane_of(run, SENT, wc);
	const struct operation *operation;
	uint64_t number = number_of(wc), expected;

	if (!lane)
		return;
	struct sender *out = &lane->out;
	for (expected = out->retired; expected < out->posted; expected++)
		if (out->under_way[expected % run->options.depth].signalled)
			break;
	operation = &out->under_way[expected % run->options.depth];
	if (number < out->retired)
		lane_fail(run, lane, "operation %" PRIu64 " completed again", number);
	else if (expected == out->posted)
		lane_fail(run, lane, "a completion of operation %" PRIu64 ", which is not under way", number);
	else if (number != expected)
		lane_fail(run, lane, "the completion of operation %" PRIu64 " (%s) is missing: that of %" PRIu64 " came",
			  expected, kind_names[operation->kind], number);
	else if (wc->opcode != opcodes[operation->kind])
		lane_fail(run, lane, "operation %" PRIu64 " (%s) completed with opcode %d", number,
			  kind_names[operation->kind], wc->opcode);
	if (run->verdict.failed)
		return;
	while (out->retired <= expected)
		retire(run, lane, &out->under_way[out->retired % run->options.depth]);
}
