/* Everything has come: what memory, counters and QPs are in the end. */
#include <inttypes.h>
#include <string.h>

#include "content.h"
#include "lane.h"

static void check_board(struct run *run, const struct lane *lane)
{
	size_t size = run->options.size;

	for (size_t at = 0; at < BOARD * size; at++)
		if (lane->in.board[at] != lane->in.board_expected[at]) {
			lane_fail(run, lane,
				  "at the end byte %zu of the memory for WRITE %zu is 0x%02x, not 0x%02x", at % size,
				  at / size, lane->in.board[at], lane->in.board_expected[at]);
			return;
		}
}

static void check_lane(struct run *run, struct lane *lane)
{
	const struct receiver *in = &lane->in;
	size_t where, receives = (size_t)receives_of(&run->options) * run->options.size;

	if (in->stream.operations != in->total)
		lane_fail(run, lane, "%" PRIu64 " operations of the other end, which did %" PRIu64,
			  in->stream.operations, in->total);
	if (*in->counter != in->counter_expected)
		lane_fail(run, lane, "the sum of all FETCH_ADDs is %" PRIu64 ", not %" PRIu64, *in->counter,
			  in->counter_expected);
	check_board(run, lane);
	if (!is_blank(in->slots, receives, &where))
		lane_fail(run, lane, "byte %zu of an empty receive has changed", where % run->options.size);
	if (!is_blank(in->written, ring_size(&run->options), &where))
		lane_fail(run, lane, "a WRITE_WITH_IMM that nobody sent changed byte %zu", where);
	if (!is_blank(in->counter + 1, 64 - sizeof(*in->counter), &where))
		lane_fail(run, lane, "byte %zu behind the counter has changed", where);
	pair_is_as_it_was(&lane->pair, &run->verdict);
}

void check_all(struct run *run)
{
	const struct region *exposed = &run->device.exposed;
	const uint8_t *rest = (const uint8_t *)(run->shared_counter + 1);
	size_t where;

	for (unsigned i = 0; i < run->options.qps; i++)
		check_lane(run, &run->lanes[i]);
	if (*run->shared_counter != run->shared_expected)
		fail(&run->verdict, "the shared sum of all FETCH_ADDs is %" PRIu64 ", not %" PRIu64,
		     *run->shared_counter, run->shared_expected);
	if (!is_blank(rest, (size_t)(exposed->memory + exposed->size - rest), &where))
		fail(&run->verdict, "byte %zu behind all exposed memory in use has changed", where);
	device_is_as_it_was(&run->device, &run->verdict);
}
