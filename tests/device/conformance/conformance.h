/*
 * Small verbs programs that say what a device does: the same list runs on a real one and on the software one, and the printed lines
 * are compared. No line has a number, an address or a time of the device's own in it.
 */
#ifndef CONFORMANCE_H
#define CONFORMANCE_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

#define MEMORY (1u << 20)
#define ALL_RIGHTS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)
#define REMOTE_RIGHTS (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)

/* The device of the run, opened anew for every case, with the usual objects. */
struct bench {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_comp_channel *channel;
	struct ibv_cq *send_cq, *recv_cq;
	struct ibv_mr *mr;
	unsigned char *memory;
	union ibv_gid gid;
	int gid_index;
};

struct options {
	enum ibv_qp_type type;
	unsigned int rights; /* of the QP */
	uint8_t retry_cnt, rnr_retry, timeout;
	struct ibv_srq *srq;
	uint32_t depth;
};

/* RC, every right, retries 3, RNR retries for ever, 33 ms, 16 requests. */
struct options usual(void);

struct pair {
	struct ibv_qp *one, *other;
};

/* Ends the program with the reason on stderr if a step that no case is about fails. */
void must(bool ok, const char *what);

void bench_up(struct bench *bench);
void bench_down(struct bench *bench);

struct ibv_qp *qp_new(struct bench *bench, struct options options);
int to_init(struct ibv_qp *qp, struct options options);
int to_rtr(struct bench *bench, struct ibv_qp *qp, uint32_t peer);
int to_rts(struct ibv_qp *qp, struct options options);
int to(struct ibv_qp *qp, enum ibv_qp_state state);
struct pair pair_new(struct bench *bench, struct options options);
void pair_end(struct pair *pair);
enum ibv_qp_state state_of(struct ibv_qp *qp);

/* One SGE over memory at offset; signalled. rdma.* is filled in for the same memory at `remote`. */
struct ibv_sge sge(struct bench *bench, uint32_t offset, uint32_t length);
int post(struct bench *bench, struct ibv_qp *qp, enum ibv_wr_opcode opcode, uint32_t offset, uint32_t length, uint32_t remote);
int post_wr(struct ibv_qp *qp, struct ibv_send_wr *wr);
int receive(struct bench *bench, struct ibv_qp *qp, uint32_t offset, uint32_t length);

/* The next completion, at most 3 s later; false: none. */
bool next(struct ibv_cq *cq, struct ibv_wc *wc);
/* Nothing comes within 100 ms. */
bool quiet(struct ibv_cq *cq);
/* Whether the channel tells of a completion by then, which is in its queue still. */
bool told(struct bench *bench, int milliseconds);
/* Says the next completion's status (and of a receive, what came). */
void say_next(struct bench *bench, struct ibv_cq *cq, const char *who);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void say_error(const char *what, int error);
void say_state(const char *who, struct ibv_qp *qp);
/* The next asynchronous event within a second, acknowledged: its name, or "none". */
const char *next_event(struct bench *bench);
const char *status_name(int status);
const char *state_name(enum ibv_qp_state state);

struct one_case {
	const char *name;
	void (*run)(struct bench *bench);
	struct one_case *next;
};
extern struct one_case *all_cases;

#define CASE(phrase)                                                                                       \
	static void phrase(struct bench *bench);                                                           \
	__attribute__((constructor)) static void add_##phrase(void)                                        \
	{                                                                                                  \
		static struct one_case one = { #phrase, phrase, NULL };                                    \
                                                                                                           \
		one.next = all_cases;                                                                      \
		all_cases = &one;                                                                          \
	}                                                                                                  \
	static void phrase(struct bench *bench)
#endif
