/* One QP with all that is known about it. */
#ifndef INTEGRITY_LANE_H
#define INTEGRITY_LANE_H

#include <stdio.h>

#include "control.h"
#include "device.h"
#include "stream.h"

struct sender {
	struct stream stream;
	struct operation next;	/* generated, not posted yet */
	struct operation *under_way; /* by number, depth of them */
	uint8_t *slots;		/* what is sent or fetched, by number */
	uint64_t posted, retired;
	uint64_t reads_done;
	struct operation written[BOARD]; /* what a READ has to bring */
	uint64_t sum;		/* added to the other end's counter of this QP and known to have been there */
	uint64_t shared_least;	/* the shared counter was at least this */
	uint64_t by_kind[KINDS];
	bool closed;		/* has posted its last */
};

struct receiver {
	struct stream stream;	/* the other end's */
	uint8_t *slots;		/* by number */
	uint64_t posted, completed;
	struct operation last;	/* message */
	uint8_t *written;	/* exposed: the ring of WRITE_WITH_IMM */
	uint8_t *board;		/* exposed */
	uint64_t *counter;	/* exposed */
	uint8_t *board_expected;
	uint64_t counter_expected;
	uint64_t total;		/* operations of the other end, once it has told */
};

struct lane {
	unsigned index;
	struct pair pair;
	struct sender out;
	struct receiver in;
};

struct run {
	struct options options;
	struct verdict verdict;
	struct ticker ticker;
	struct control control;
	struct device device;
	struct address there;
	struct lane *lanes;
	uint64_t *shared; /* receives of the SRQ by their place in memory: which it is that waits there, from 1 on */
	uint64_t shared_posted;
	uint64_t *shared_counter; /* exposed */
	uint64_t shared_expected;
	uint64_t operations, received;
	uint64_t events;
	double progress; /* when something completed last, by the ticker */
	bool stopping, all_told;
};

/* How many messages the other end of a QP may be ahead of those that this one has looked at. */
static inline uint32_t ahead_of(const struct options *options)
{
	return receives_of(options) * (options->shared ? options->qps : 1);
}

/*
 * The layout of exposed memory, the same at both ends. A message that waits for its receive may already be written: a ring of
 * twice as many as there are receives never overlaps.
 */
static inline size_t ring_size(const struct options *options)
{
	return 2 * (size_t)ahead_of(options) * options->size;
}

static inline size_t lane_size(const struct options *options)
{
	return ring_size(options) + BOARD * (size_t)options->size + 64;
}

static inline size_t exposed_size(const struct options *options)
{
	return options->qps * lane_size(options) + 64;
}

static inline size_t ring_offset(const struct options *options, uint64_t message)
{
	return (size_t)(message % (2 * ahead_of(options))) * options->size;
}

static inline size_t board_offset(const struct options *options, uint64_t write)
{
	return ring_size(options) + (size_t)(write % BOARD) * options->size;
}

static inline size_t counter_offset(const struct options *options)
{
	return ring_size(options) + BOARD * (size_t)options->size;
}

void lanes_create(struct run *run);
void lanes_end(struct run *run);
void lanes_free(struct run *run);

/* A complaint that names the QP. */
void lane_fail(struct run *run, const struct lane *lane, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Work requests carry their QP and number, so that a completion can be told from any other. */
enum side { SENT = 0, RECEIVED = 1 };

static inline uint64_t make_wr_id(enum side side, const struct lane *lane, uint64_t number)
{
	return (uint64_t)side << 63 | (uint64_t)lane->index << 48 | (number & 0xffffffffffffu);
}

/* The QP of a completion; NULL after a complaint. */
struct lane *lane_of(struct run *run, enum side side, const struct ibv_wc *wc);

static inline uint64_t number_of(const struct ibv_wc *wc)
{
	return wc->wr_id & 0xffffffffffffu;
}

/* sending.c */
bool post_sends(struct run *run, struct lane *lane); /* whether anything was posted */
void on_sent(struct run *run, const struct ibv_wc *wc);

/* receiving.c */
void post_receives(struct run *run, struct lane *lane);
void post_shared_receives(struct run *run); /* all there are */
void on_received(struct run *run, const struct ibv_wc *wc);
bool has_received_all(const struct lane *lane);

/* final.c: nothing is under way any more */
void check_all(struct run *run);

/* engine.c */
void engine_run(struct run *run, FILE *out);
void engine_interrupt(void); /* from a signal handler: stop */

#endif
