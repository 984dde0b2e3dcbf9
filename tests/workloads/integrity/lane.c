#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lane.h"
#include "content.h"

static void lane_create(struct run *run, struct lane *lane)
{
	const struct options *options = &run->options;
	uint8_t *exposed = run->device.exposed.memory + lane->index * lane_size(options);
	uint32_t receives = receives_of(options);

	pair_create(&lane->pair, &run->device, &run->verdict);
	if (run->verdict.failed)
		return;
	stream_start(&lane->out.stream, options->seed, lane->index, !options->host, options->size, options->depth);
	stream_start(&lane->in.stream, options->seed, lane->index, options->host, options->size, options->depth);
	lane->out.next = stream_next(&lane->out.stream);
	lane->out.slots = run->device.sent.memory + (size_t)lane->index * options->depth * options->size;
	lane->out.under_way = calloc(options->depth, sizeof(*lane->out.under_way));
	lane->in.slots = run->device.received.memory + (size_t)lane->index * receives * options->size;
	lane->in.written = exposed;
	lane->in.board = exposed + board_offset(options, 0);
	lane->in.board_expected = malloc(BOARD * (size_t)options->size);
	lane->in.counter = (uint64_t *)(void *)(exposed + counter_offset(options));
	lane->in.total = UINT64_MAX;
	if (!lane->out.under_way || !lane->in.board_expected) {
		fail(&run->verdict, "out of memory");
		return;
	}
	blank(lane->in.board_expected, BOARD * (size_t)options->size);
	*lane->in.counter = 0;
	pair_listen(&lane->pair, &run->device, &run->verdict);
	if (!run->verdict.failed && !run->options.shared)
		post_receives(run, lane);
}

void lanes_create(struct run *run)
{
	run->lanes = calloc(run->options.qps, sizeof(*run->lanes));
	if (!run->lanes) {
		fail(&run->verdict, "out of memory");
		return;
	}
	run->shared_counter =
		(uint64_t *)(void *)(run->device.exposed.memory + run->options.qps * lane_size(&run->options));
	*run->shared_counter = 0;
	for (unsigned i = 0; i < run->options.qps && !run->verdict.failed; i++) {
		run->lanes[i].index = i;
		lane_create(run, &run->lanes[i]);
	}
	if (run->options.shared && !run->verdict.failed)
		post_shared_receives(run);
}

void lanes_end(struct run *run)
{
	for (unsigned i = 0; run->lanes && i < run->options.qps; i++)
		if ((run->lanes[i].pair.qp && ibv_destroy_qp(run->lanes[i].pair.qp)) ||
		    (run->lanes[i].pair.target && ibv_destroy_qp(run->lanes[i].pair.target)))
			lane_fail(run, &run->lanes[i], "it cannot be ended");
}

void lanes_free(struct run *run)
{
	for (unsigned i = 0; run->lanes && i < run->options.qps; i++) {
		free(run->lanes[i].out.under_way);
		free(run->lanes[i].in.board_expected);
	}
	free(run->lanes);
	free(run->shared);
}

void lane_fail(struct run *run, const struct lane *lane, const char *format, ...)
{
	char text[400];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	fail(&run->verdict, "QP %u (0x%x): %s", lane->index, lane->pair.number, text);
}

struct lane *lane_of(struct run *run, enum side side, const struct ibv_wc *wc)
{
	unsigned index = wc->wr_id >> 48 & 0x7fff;
	struct lane *lane = &run->lanes[index];

	if (index >= run->options.qps || (enum side)(wc->wr_id >> 63) != side) {
		fail(&run->verdict, "a completion in the %s CQ has wr_id %" PRIx64 ", which nobody posted there",
		     side == SENT ? "send" : "receive", wc->wr_id);
		return NULL;
	}
	if (wc->status != IBV_WC_SUCCESS)
		lane_fail(run, lane, "%s %" PRIu64 " completed with %s", side == SENT ? "operation" : "receive",
			  number_of(wc), ibv_wc_status_str(wc->status));
	else if (wc->qp_num != lane->pair.number)
		lane_fail(run, lane, "the completion of %s %" PRIu64 " has qp_num 0x%x",
			  side == SENT ? "operation" : "receive", number_of(wc), wc->qp_num);
	return run->verdict.failed ? NULL : lane;
}
