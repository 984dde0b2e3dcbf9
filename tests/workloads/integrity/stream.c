#include "stream.h"

#include <string.h>

#include "content.h"

const char *const kind_names[KINDS] = { "SEND", "SEND_WITH_IMM", "WRITE", "WRITE_WITH_IMM", "READ", "FETCH_ADD" };

void stream_start(struct stream *stream, uint64_t seed, unsigned qp, bool of_server, uint32_t size, uint32_t depth)
{
	memset(stream, 0, sizeof(*stream));
	stream->id = scramble(scramble(seed) + 2 * qp + of_server);
	stream->size = size;
	stream->longest_silence = depth / 2 - 1;
}

/* Half of them small enough for any device's inline limit. */
static uint32_t pick_length(const struct stream *stream, uint64_t chance)
{
	uint32_t most = chance & 1 ? 64 : chance & 2 ? stream->size : stream->size / 4;

	if (most < CONTENT_LEAST)
		most = CONTENT_LEAST;
	return CONTENT_LEAST + (uint32_t)((chance >> 8) % (most - CONTENT_LEAST + 1));
}

static enum kind pick_kind(const struct stream *stream, uint64_t chance)
{
	enum kind kind = (enum kind)(chance % KINDS);
	uint64_t unread = stream->writes - stream->reads;

	if (kind == WRITE && unread == BOARD)
		return READ;
	if (kind == READ && !unread)
		return WRITE;
	return kind;
}

struct operation stream_next(struct stream *stream)
{
	uint64_t chance = scramble(stream->id ^ scramble(stream->operations)), more = scramble(chance);
	struct operation operation = { .kind = pick_kind(stream, chance), .stream = stream->id,
				       .number = stream->operations++, .length = pick_length(stream, chance >> 8),
				       .imm = (uint32_t)more, .may_inline = more >> 32 & 1,
				       .solicited = !(more >> 33 & 7) };

	switch (operation.kind) {
	case READ:
		operation.ordinal = stream->reads++;
		operation.length = stream->written[operation.ordinal % BOARD].length;
		break;
	case FETCH_ADD:
		operation.length = 8;
		operation.addend = 1 + (more >> 40 & 0xffff);
		operation.shared = more >> 36 & 1;
		break;
	case WRITE:
		operation.ordinal = stream->writes++;
		stream->written[operation.ordinal % BOARD] = operation;
		break;
	default:
		operation.ordinal = stream->messages++;
	}
	if (operation.kind != FETCH_ADD && more >> 37 & 1)
		operation.first_sge = 1 + (uint32_t)((more >> 40) % (operation.length - 1));
	/* What READ and FETCH_ADD bring is looked at when they complete. */
	operation.signalled = operation.kind == READ || operation.kind == FETCH_ADD || !(more >> 60 & 3) ||
			      stream->silence == stream->longest_silence;
	stream->silence = operation.signalled ? 0 : stream->silence + 1;
	return operation;
}
