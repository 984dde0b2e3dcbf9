/* Posts receives and judges what arrives, walking along the other end's stream. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "content.h"
#include "lane.h"

static uint8_t *slot_of(const struct run *run, const struct lane *lane, uint64_t number)
{
	return lane->in.slots + number % receives_of(&run->options) * run->options.size;
}

/* Every third is scattered over two. */
static int post_slot(struct run *run, const struct lane *lane, uint8_t *slot, uint64_t wr_id, uint64_t number)
{
	uint32_t size = run->options.size, lkey = run->device.received.mr->lkey;
	uint32_t first = number % 3 ? size : (uint32_t)(1 + scramble(number) % (size - 1));
	struct ibv_sge sges[2] = { { (uintptr_t)slot, first, lkey }, { (uintptr_t)slot + first, size - first, lkey } };
	struct ibv_recv_wr wr = { .wr_id = wr_id, .sg_list = sges, .num_sge = first < size ? 2 : 1 };
	struct ibv_recv_wr *bad;

	blank(slot, size);
	return lane ? ibv_post_recv(lane->pair.qp, &wr, &bad) : ibv_post_srq_recv(run->device.srq, &wr, &bad);
}

static void post_receive(struct run *run, struct lane *lane)
{
	struct receiver *in = &lane->in;
	uint64_t number = in->posted;
	int error = post_slot(run, lane, slot_of(run, lane, number), make_wr_id(RECEIVED, lane, number), number);

	if (error)
		lane_fail(run, lane, "posting receive %" PRIu64 ": %s", number, strerror(error));
	in->posted++;
}

void post_receives(struct run *run, struct lane *lane)
{
	while (lane->in.posted < lane->in.completed + receives_of(&run->options) && !run->verdict.failed)
		post_receive(run, lane);
}

/* A shared receive is named by its place, in the bits of a lane's number, and by which one it is. */
#define PLACE_BITS 20

static uint8_t *shared_slot(const struct run *run, uint64_t place)
{
	return run->device.received.memory + place * run->options.size;
}

static void post_shared_receive(struct run *run, uint64_t place)
{
	uint64_t which = ++run->shared_posted, wr_id = (uint64_t)RECEIVED << 63 | which << PLACE_BITS | place;
	int error = post_slot(run, NULL, shared_slot(run, place), wr_id, which);

	run->shared[place] = which;
	if (error)
		fail(&run->verdict, "posting shared receive %" PRIu64 ": %s", which, strerror(error));
}

void post_shared_receives(struct run *run)
{
	uint64_t places = (uint64_t)run->options.qps * receives_of(&run->options);

	run->shared = calloc(places, sizeof(*run->shared));
	if (!run->shared)
		fail(&run->verdict, "out of memory");
	for (uint64_t place = 0; place < places && !run->verdict.failed; place++)
		post_shared_receive(run, place);
}

/* The QP of a completion of a shared receive, and the place that it is about; NULL after a complaint. */
static struct lane *shared_lane_of(struct run *run, const struct ibv_wc *wc, uint64_t *place)
{
	uint64_t which = (wc->wr_id & ~((uint64_t)1 << 63)) >> PLACE_BITS;
	struct lane *lane = run->lanes;

	*place = wc->wr_id & ((1u << PLACE_BITS) - 1);
	while (lane < run->lanes + run->options.qps && receiving_number(&lane->pair) != wc->qp_num)
		lane++;
	if (lane == run->lanes + run->options.qps)
		fail(&run->verdict, "the completion of shared receive %" PRIu64 " has qp_num 0x%x", which, wc->qp_num);
	else if (!(wc->wr_id >> 63) || *place >= (uint64_t)run->options.qps * receives_of(&run->options) || !which ||
		 run->shared[*place] != which)
		lane_fail(run, lane, "a completion has wr_id %" PRIx64 ", and no shared receive of that name waits",
			  wc->wr_id);
	else if (wc->status != IBV_WC_SUCCESS)
		lane_fail(run, lane, "shared receive %" PRIu64 " completed with %s", which, ibv_wc_status_str(wc->status));
	if (run->verdict.failed)
		return NULL;
	run->shared[*place] = 0;
	return lane;
}

/* What the other end did on this QP without telling. */
static void apply(struct run *run, struct lane *lane, const struct operation *operation)
{
	struct receiver *in = &lane->in;

	if (operation->kind == WRITE)
		content_fill(in->board_expected + operation->ordinal % BOARD * run->options.size, operation);
	else if (operation->kind == FETCH_ADD && operation->shared)
		run->shared_expected += operation->addend;
	else if (operation->kind == FETCH_ADD)
		in->counter_expected += operation->addend;
}

static struct operation next_message(struct run *run, struct lane *lane)
{
	struct operation operation;

	while (operation = stream_next(&lane->in.stream), !is_message(&operation))
		apply(run, lane, &operation);
	return operation;
}

static void check_bytes(struct run *run, struct lane *lane, const struct operation *operation, uint64_t number, uint8_t *slot)
{
	uint32_t size = run->options.size, length = operation->length;
	uint8_t *arrived = slot;
	char why[200];
	size_t where;

	if (operation->kind == WRITE_WITH_IMM) {
		arrived = lane->in.written + ring_offset(&run->options, number);
		if (!is_blank(slot, size, &where))
			lane_fail(run, lane, "message %" PRIu64 " (WRITE_WITH_IMM) changed byte %zu of its receive", number,
				  where);
	}
	if (!content_is(arrived, size, operation, why, sizeof(why)))
		lane_fail(run, lane, "message %" PRIu64 " (operation %" PRIu64 ", %s): %s", number, operation->number,
			  kind_names[operation->kind], why);
	else if (!is_blank(arrived + length, size - length, &where))
		lane_fail(run, lane, "message %" PRIu64 " (%s) of %" PRIu32 " bytes changed byte %zu", number,
			  kind_names[operation->kind], length, length + where);
	/* At the end nothing may be left there. */
	if (operation->kind == WRITE_WITH_IMM)
		blank(arrived, size);
}

/* Immediate data tells which message this is, if it is not the one that must come. */
static void name_by_imm(struct run *run, struct lane *lane, const struct operation *expected, const struct ibv_wc *wc)
{
	const struct operation *last = &lane->in.last;
	struct stream ahead = lane->in.stream;
	uint64_t number = lane->in.completed;

	if (number && has_imm(last) && wc->imm_data == last->imm) {
		lane_fail(run, lane,
			  "message %" PRIu64 " (operation %" PRIu64 ", %s): the earlier operation %" PRIu64 " came again, it is duplicated",
			  number, expected->number, kind_names[expected->kind], last->number);
		return;
	}
	for (int i = 0; i < 32; i++) {
		struct operation later = stream_next(&ahead);

		if (has_imm(&later) && wc->imm_data == later.imm)
			lane_fail(run, lane,
				  "message %" PRIu64 " (operation %" PRIu64 ", %s): the later operation %" PRIu64 " came, this one is lost or out of order",
				  number, expected->number, kind_names[expected->kind], later.number);
	}
}

/* A message that is lost or came twice makes everything wrong: which it is, its bytes or immediate data tell. */
static void check_message(struct run *run, struct lane *lane, const struct operation *operation, const struct ibv_wc *wc,
			  uint8_t *slot)
{
	bool written = operation->kind == WRITE_WITH_IMM, with_imm = wc->wc_flags & IBV_WC_WITH_IMM;
	struct operation as_sent = *operation;
	uint64_t number = lane->in.completed;

	if (with_imm && wc->imm_data != operation->imm)
		name_by_imm(run, lane, operation, wc);
	/* A SEND in the place of a WRITE_WITH_IMM has its bytes in the receive. */
	if (wc->opcode == IBV_WC_RECV && written)
		as_sent.kind = SEND;
	if (wc->opcode == IBV_WC_RECV || written)
		check_bytes(run, lane, &as_sent, number, slot);
	if (wc->opcode != (written ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV))
		lane_fail(run, lane, "message %" PRIu64 " (operation %" PRIu64 ", %s) came with opcode %d", number,
			  operation->number, kind_names[operation->kind], wc->opcode);
	else if (wc->byte_len != operation->length)
		lane_fail(run, lane, "message %" PRIu64 " has %" PRIu32 " bytes, says its completion, not %" PRIu32, number,
			  wc->byte_len, operation->length);
	else if (with_imm != has_imm(operation))
		lane_fail(run, lane, "message %" PRIu64 " (%s) came %s immediate data", number,
			  kind_names[operation->kind], has_imm(operation) ? "without" : "with");
	else if (with_imm && wc->imm_data != operation->imm)
		lane_fail(run, lane, "message %" PRIu64 " (%s) came with imm_data 0x%x, not 0x%x", number,
			  kind_names[operation->kind], wc->imm_data, operation->imm);
}

/* What the next message of a QP is, which has come into that slot. */
static void take_message(struct run *run, struct lane *lane, const struct ibv_wc *wc, uint8_t *slot)
{
	struct operation operation;

	if (has_received_all(lane))
		lane_fail(run, lane, "message %" PRIu64 " came after the last one", lane->in.completed);
	if (run->verdict.failed)
		return;
	operation = next_message(run, lane);
	check_message(run, lane, &operation, wc, slot);
	lane->in.last = operation;
	lane->in.completed++;
	run->received++;
}

static void on_shared_received(struct run *run, const struct ibv_wc *wc)
{
	uint64_t place;
	struct lane *lane = shared_lane_of(run, wc, &place);

	if (!lane)
		return;
	take_message(run, lane, wc, shared_slot(run, place));
	if (!run->verdict.failed)
		post_shared_receive(run, place);
}

void on_received(struct run *run, const struct ibv_wc *wc)
{
	if (run->options.shared) {
		on_shared_received(run, wc);
		return;
	}

	struct lane *lane = lane_of(run, RECEIVED, wc);
	uint64_t number = number_of(wc);

	if (!lane)
		return;
	if (number < lane->in.completed)
		lane_fail(run, lane, "receive %" PRIu64 " completed again", number);
	else if (number != lane->in.completed)
		lane_fail(run, lane, "the completion of receive %" PRIu64 " is missing: that of %" PRIu64 " came",
			  lane->in.completed, number);
	if (run->verdict.failed)
		return;
	take_message(run, lane, wc, slot_of(run, lane, number));
	post_receives(run, lane);
}

bool has_received_all(const struct lane *lane)
{
	return lane->in.stream.operations >= lane->in.total;
}
