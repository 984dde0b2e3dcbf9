/*
 * What one end does on one QP: a sequence of operations that follows from a number, so that the other end knows it.
 *
 * Whoever receives walks the sender's stream along with its own and knows of every message what it must be, and of
 * the memory it exposes what must have happened to it in between.
 *
 * Remote memory of a QP, seen from the sender: a ring of `2 * receives` slots for WRITE_WITH_IMM, used by message
 * number; a board of BOARD slots for WRITE, used in turn, each read back before it is written again; a counter.
 */
#ifndef INTEGRITY_STREAM_H
#define INTEGRITY_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#define BOARD 8u

enum kind { SEND, SEND_WITH_IMM, WRITE, WRITE_WITH_IMM, READ, FETCH_ADD, KINDS };

struct operation {
	enum kind kind;
	uint64_t stream, number;
	uint64_t ordinal;   /* among the messages, the WRITEs or the READs */
	uint32_t length;    /* of READ: of the WRITE that it reads back */
	uint32_t first_sge; /* bytes in the first of two SGEs, or 0 for one */
	uint32_t imm;
	uint64_t addend;
	bool shared;	    /* addend: to the counter of all QPs */
	bool may_inline, signalled, solicited;
};

struct stream {
	uint64_t id;
	uint32_t size, longest_silence;
	uint64_t operations, messages, writes, reads;
	uint32_t silence;	 /* unsignalled operations since the last signalled one */
	struct operation written[BOARD];
};

extern const char *const kind_names[KINDS];

void stream_start(struct stream *stream, uint64_t seed, unsigned qp, bool of_server, uint32_t size, uint32_t depth);
struct operation stream_next(struct stream *stream);

/* Whether it takes a receive at the other end. */
static inline bool is_message(const struct operation *operation)
{
	return operation->kind == SEND || operation->kind == SEND_WITH_IMM || operation->kind == WRITE_WITH_IMM;
}

static inline bool has_imm(const struct operation *operation)
{
	return operation->kind == SEND_WITH_IMM || operation->kind == WRITE_WITH_IMM;
}

/* A good scrambling of 64 bits (splitmix64). */
static inline uint64_t scramble(uint64_t value)
{
	value += 0x9e3779b97f4a7c15u;
	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
	return value ^ (value >> 31);
}

#endif
