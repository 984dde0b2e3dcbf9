/* Two hosts with a software device each, two processes, a clock that only the test moves. */
#ifndef RIG_H
#define RIG_H

#include <stdio.h>
#include <stdlib.h>

#include "engine.h"

#define CHECK(condition)                                                                                   \
	do {                                                                                               \
		if (!(condition)) {                                                                        \
			fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);      \
			exit(1);                                                                           \
		}                                                                                          \
	} while (0)

/* Both sides as numbers, for the message. */
#define SAME(is, should)                                                                                   \
	do {                                                                                               \
		unsigned long long is_ = (unsigned long long)(is), should_ = (unsigned long long)(should); \
		if (is_ != should_) {                                                                      \
			fprintf(stderr, "%s:%d: %s is %llu, not %llu\n", __FILE__, __LINE__, #is, is_,     \
				should_);                                                                  \
			exit(1);                                                                           \
		}                                                                                          \
	} while (0)

#define EVENTS 64
#define MEMORY (4u << 20)

struct seen {
	enum ibv_event_type type;
	enum rnic_kind kind;
	uint64_t cookie;
};

/* One process with its device open and the usual objects. */
struct party {
	struct rnic_device *device;
	struct rnic_context *context;
	unsigned char *memory;
	uint32_t pd, mr, lkey, rkey, cq;
	struct rnic_ring *cq_ring;
	struct seen events[EVENTS];
	int event_count, completion_events;
};

struct end {
	struct party *party;
	enum ibv_qp_type type;
	struct rnic_ring *sq, *rq;
	uint32_t qp, qpn, mtu;
	uint8_t gid_index;
};

struct rig {
	struct rnic_fabric *fabric;
	struct party left, right;
};

extern uint64_t rig_time;

void rig_up(struct rig *rig);
void rig_down(struct rig *rig);

void party_open(struct party *party, struct rnic_device *device);
struct rnic_ring *ring_new(uint32_t depth, uint32_t stride);

/* A QP with queues of 16 requests of 4 SGEs; srq: RNIC_NONE or a handle. */
void end_new(struct end *end, struct party *party, enum ibv_qp_type type, uint32_t srq);
void end_init(struct end *end, unsigned int access);
int end_modify(struct end *end, struct ibv_qp_attr *attr, int mask);
/* As after connecting: INIT, RTR, RTS on both; retry_cnt and rnr_retry 7, timeout 10 (4 ms), RNR timer 12 (0.64 ms). */
void connect_ends(struct end *one, struct end *other);
void end_rtr(struct end *end, const struct end *other);
void end_rts(struct end *end, uint8_t retry_cnt, uint8_t rnr_retry);
void rc_pair(struct rig *rig, struct end *left, struct end *right);
void end_destroy(struct end *end);

/* Fills in a request over [offset, offset + length) of the party's memory, flags signalled, and posts it. */
struct rnic_send *request(struct end *end, uint64_t wr_id, enum ibv_wr_opcode opcode, uint32_t offset, uint32_t length);
void post(struct end *end);
void send_now(struct end *end, uint64_t wr_id, enum ibv_wr_opcode opcode, uint32_t offset, uint32_t length, const struct end *to,
	      uint32_t remote_offset);
void receive(struct end *end, uint64_t wr_id, uint32_t offset, uint32_t length);
void ring_receive(struct rnic_ring *ring, struct party *party, uint64_t wr_id, uint32_t offset, uint32_t length);

/* All that needs no time. */
void run(struct rig *rig);
/* Lets time pass, event by event. */
void run_for(struct rig *rig, uint64_t ns);

bool poll_one(struct party *party, struct rnic_completion *completion);
/* The next completion must be this one. */
struct rnic_completion expect(struct party *party, uint64_t wr_id, enum ibv_wc_status status);
void expect_none(struct party *party);
void expect_event(struct party *party, enum ibv_event_type type);
void state_is(struct end *end, enum ibv_qp_state state);

struct test_case {
	const char *name;
	void (*run)(void);
	struct test_case *next;
};
extern struct test_case *test_cases;

/* A case is a phrase: what holds. */
#define CASE(phrase)                                                                                       \
	static void phrase(void);                                                                          \
	__attribute__((constructor)) static void add_##phrase(void)                                        \
	{                                                                                                  \
		static struct test_case one = { #phrase, phrase, NULL };                                   \
                                                                                                           \
		one.next = test_cases;                                                                     \
		test_cases = &one;                                                                         \
	}                                                                                                  \
	static void phrase(void)
#endif
