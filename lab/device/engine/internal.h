/* What the engine's files share. Each struct's owner is the file named beside it. */
#ifndef RNIC_INTERNAL_H
#define RNIC_INTERNAL_H

#include <errno.h>
#include <stdlib.h>

#include "engine.h"
#include "settings.h"

/* A message travels in pieces of so many bytes: small enough for QPs to share a wire, large enough to cost little. */
#define RNIC_PIECE (64u << 10)
/* Unacknowledged bytes of one QP on the wire; far below half the space of PSNs at the smallest MTU. */
#define RNIC_WINDOW (16u << 20)
#define RNIC_PSN_MASK 0xffffffu
#define RNIC_GIDS 128
#define RNIC_GRH_BYTES 40
#define RNIC_MULTICAST_QPN 0xffffffu

/* --- numbers.c: numbers that are handed out, and what is found by them --- */

struct rnic_link {
	struct rnic_link *next;
	uint32_t number;
};

struct rnic_table {
	struct rnic_link **buckets;
	uint32_t size, count; /* size: a power of two, or 0 */
};

int rnic_table_add(struct rnic_table *table, struct rnic_link *link, uint32_t number);
void rnic_table_remove(struct rnic_table *table, struct rnic_link *link);
struct rnic_link *rnic_table_find(const struct rnic_table *table, uint32_t number);
void rnic_table_free(struct rnic_table *table);

struct rnic_numbers {
	uint32_t next, step, mask;
	uint32_t *freed; /* the last one freed is the first to come back */
	uint32_t count, capacity;
};

uint32_t rnic_number_take(struct rnic_numbers *numbers, const struct rnic_table *taken, bool reuse);
void rnic_number_give(struct rnic_numbers *numbers, uint32_t number);

struct rnic_handles {
	void **objects;
	uint32_t size, next_free; /* hints: everything below next_free is taken */
};

int rnic_handle_take(struct rnic_handles *handles, void *object, uint32_t *handle);
void *rnic_handle_find(const struct rnic_handles *handles, uint32_t handle);
void rnic_handle_give(struct rnic_handles *handles, uint32_t handle);

/* --- fabric.c: time and work --- */

struct rnic_event {
	uint64_t at, order;
	void (*fire)(struct rnic_fabric *fabric, struct rnic_event *event);
	uint32_t place; /* in the heap, from 1; 0: not armed */
};

void rnic_event_arm(struct rnic_fabric *fabric, struct rnic_event *event, uint64_t at);
void rnic_event_cancel(struct rnic_fabric *fabric, struct rnic_event *event);

/* A doubly linked list through one member. */
struct rnic_node {
	struct rnic_node *next, *previous;
};

static inline void rnic_list_init(struct rnic_node *head) { head->next = head->previous = head; }
static inline bool rnic_list_empty(const struct rnic_node *head) { return head->next == head; }

static inline void rnic_list_add(struct rnic_node *head, struct rnic_node *node)
{
	node->next = head;
	node->previous = head->previous;
	head->previous->next = node;
	head->previous = node;
}

static inline void rnic_list_remove(struct rnic_node *node)
{
	if (!node->next)
		return;
	node->next->previous = node->previous;
	node->previous->next = node->next;
	node->next = node->previous = NULL;
}

#define rnic_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

#define RNIC_PARKED 4096u

struct rnic_fabric {
	uint64_t (*now)(void *clock);
	void *clock;
	uint64_t time, order;
	struct rnic_event **heap; /* from index 1 */
	uint32_t events, heap_size;
	struct rnic_node runnable; /* QPs (member run) */
	struct rnic_node devices;
	struct rnic_node parked[RNIC_PARKED]; /* QPs (member park) by the number of their destination */
	uint64_t random;
	unsigned char staging[RNIC_PIECE]; /* one piece on its way; free again when rnic_transmit returns */
};

uint64_t rnic_random(struct rnic_fabric *fabric, uint64_t below);

/* --- device.c --- */

struct rnic_gid {
	uint8_t raw[16];
	int type;
	uint32_t ifindex;
};

struct rnic_fault_point {
	struct rnic_fault_point *next;
	uint32_t nth;
	int error;
	uint64_t delay;
	char call[];
};

enum rnic_counter {
	RNIC_OVERFLOWS,
	RNIC_ERRORS,
	RNIC_EXECUTED,
	RNIC_LOST,
	RNIC_BYTES,
	RNIC_IN_FLIGHT,
	RNIC_RETRIES,
	RNIC_COUNTERS,
};

struct rnic_device {
	struct rnic_fabric *fabric;
	struct rnic_node node;
	char *name, *host;
	uint64_t settings[RNIC_SETTINGS];
	uint64_t counters[RNIC_COUNTERS];
	struct rnic_gid gids[RNIC_GIDS];
	bool port_down;
	struct rnic_node contexts;
	struct rnic_table qps, memory, srqs, cqs;
	struct rnic_numbers qpns, keys, srqns, cqns;
	struct rnic_fault_point *faults;
	struct rnic_node domains; /* XRC domains */
	struct rnic_node groups;  /* multicast */
	/* The wire out of this host. */
	uint64_t wire_free;
	struct rnic_node waiting; /* QPs (member run) for the wire */
	struct rnic_event wire_event;
	struct rnic_device **parted;
	int parted_count;
};

/* Which device has that GID, or NULL. */
struct rnic_device *rnic_device_of(struct rnic_fabric *fabric, const uint8_t gid[16]);
bool rnic_reachable(const struct rnic_device *from, const struct rnic_device *to);

/* --- context.c --- */

struct rnic_context {
	struct rnic_device *device;
	struct rnic_node node;
	const struct rnic_sinks *sinks;
	void *process;
	struct rnic_handles handles[RNIC_KINDS];
};

/* What every object has in front. */
struct rnic_object {
	struct rnic_link link; /* by its number in the device's table of its kind */
	struct rnic_context *context;
	uint32_t handle;
	uint32_t users; /* it cannot end as long as there are any */
};

struct rnic_pd {
	struct rnic_object object;
};

struct rnic_domain {
	struct rnic_node node;
	uint64_t name;
	uint32_t users; /* XRCDs that are open on it, and its targets and SRQs */
};

struct rnic_xrcd {
	struct rnic_object object;
	struct rnic_domain *domain;
};

struct rnic_ah {
	struct rnic_object object;
	struct rnic_pd *pd;
};

void *rnic_find(const struct rnic_context *context, enum rnic_kind kind, uint32_t handle);
/* Makes an object with its handle; NULL: out of memory. */
void *rnic_make(struct rnic_context *context, enum rnic_kind kind, size_t size);
void rnic_unmake(enum rnic_kind kind, void *object);

/* --- memory.c, window.c --- */

struct rnic_mr {
	struct rnic_object object; /* number: lkey >> 8 */
	bool is_window;		   /* false; see struct rnic_mw */
	struct rnic_pd *pd;
	uint64_t address, length, iova;
	unsigned int access;
	uint32_t lkey, rkey;
	bool invalid;
};

struct rnic_mw {
	struct rnic_object object; /* number: rkey >> 8 */
	bool is_window;		   /* true */
	struct rnic_pd *pd;
	enum ibv_mw_type type;
	uint32_t rkey;
	struct rnic_mr *mr; /* NULL: not bound */
	uint32_t qpn;	    /* of type 2: whose it is */
	uint64_t address, length;
	unsigned int access;
};

struct rnic_qp;

/* Where (address, length) of a key is in its process, or NULL with *mr unset. */
struct rnic_mr *rnic_local(struct rnic_device *device, struct rnic_pd *pd, const struct rnic_sge *sge, uint32_t length,
			   unsigned int access);
struct rnic_mr *rnic_remote(struct rnic_qp *qp, struct rnic_pd *pd, uint32_t rkey, uint64_t *address, uint64_t length,
			    unsigned int access);
uint64_t rnic_mr_address(const struct rnic_mr *mr, uint64_t iova);
/* [offset, offset + length) of the concatenation of SGEs, to or from `flat`: an ibv_wc_status. */
enum ibv_wc_status rnic_gather(struct rnic_device *device, struct rnic_pd *pd, const struct rnic_sge *sges, uint32_t count,
			       uint64_t offset, uint32_t length, void *flat);
enum ibv_wc_status rnic_scatter(struct rnic_device *device, struct rnic_pd *pd, const struct rnic_sge *sges, uint32_t count,
				uint64_t offset, uint32_t length, const void *flat);
void rnic_end_mr(struct rnic_mr *mr);
void rnic_end_mw(struct rnic_mw *mw);
int rnic_bind(struct rnic_qp *qp, const struct rnic_send *wr);
int rnic_invalidate(struct rnic_qp *qp, struct rnic_pd *pd, uint32_t rkey);
uint32_t rnic_key_variant(const struct rnic_device *device);

/* --- queue.c: the engine's end of a ring --- */

struct rnic_queue {
	struct rnic_ring *ring; /* NULL: there is none */
	/* Copies that nobody else can change. */
	uint32_t stride, mask, depth;
	uint32_t head; /* consumed (of completion queues: produced) */
};

void rnic_queue_init(struct rnic_queue *queue, struct rnic_ring *ring);
uint32_t rnic_queue_produced(const struct rnic_queue *queue); /* never more than depth beyond head */
const void *rnic_queue_at(const struct rnic_queue *queue, uint32_t counter);
void rnic_queue_consume(struct rnic_queue *queue, uint32_t head);

/* --- cq.c, srq.c --- */

struct rnic_cq {
	struct rnic_object object;
	struct rnic_queue queue;
	uint64_t cookie;
	bool overflowed;
};

void rnic_complete(struct rnic_cq *cq, const struct rnic_completion *completion, bool solicited);
void rnic_end_cq(struct rnic_cq *cq);

/* A receive that was taken out of its queue. */
struct rnic_taken {
	uint64_t wr_id;
	uint64_t length;
	uint32_t num_sge;
	struct rnic_sge sges[RNIC_MAX_SGE];
};

struct rnic_srq {
	struct rnic_object object; /* number: SRQN */
	struct rnic_pd *pd;
	enum ibv_srq_type type;
	struct rnic_domain *domain;
	struct rnic_cq *cq;
	struct rnic_queue queue;
	uint32_t max_sge, limit;
	uint64_t cookie;
	struct rnic_node starving; /* responders (member starves) that had no receive */
};

bool rnic_queue_receive(struct rnic_queue *queue, uint32_t counter, uint32_t max_sge, struct rnic_taken *taken);
bool rnic_srq_take(struct rnic_srq *srq, struct rnic_taken *taken);
void rnic_end_srq(struct rnic_srq *srq);

/* --- qp.c --- */

enum rnic_sent_state { RNIC_UNSENT, RNIC_SENT, RNIC_DONE, RNIC_FAILED };

/* What the requester remembers of each request between its start and its completion. */
struct rnic_sent {
	uint32_t first_psn, last_psn;
	uint32_t length, received; /* received: of a read's response */
	uint8_t state;		   /* enum rnic_sent_state */
	uint8_t status;		   /* enum ibv_wc_status of a failed one */
	uint8_t opcode;
	bool awaits_response; /* a read or atomic */
};

struct rnic_request {
	struct rnic_send wr;
	union {
		struct rnic_sge sges[RNIC_MAX_SGE];
		unsigned char data[RNIC_MAX_INLINE];
	};
	uint32_t length;
};

enum rnic_reply_kind { RNIC_REPLY_ACK, RNIC_REPLY_READ, RNIC_REPLY_ATOMIC };

struct rnic_reply {
	uint8_t kind, syndrome, timer;
	uint32_t psn;
	uint32_t rkey;
	uint64_t address; /* of a read: the requester's view */
	uint32_t length, offset;
	uint64_t value;
	uint32_t srqn;
};

#define RNIC_REPLIES 64u
#define RNIC_MAX_READS 16u

struct rnic_atomic_result {
	uint32_t psn;
	bool valid;
	uint64_t value;
};

struct rnic_requester {
	struct rnic_queue queue;
	struct rnic_sent *sent;	      /* one a slot */
	struct rnic_request *request; /* the one that is being sent */
	uint32_t next;		      /* its counter; queue.head: the oldest that has not completed */
	uint32_t started;	      /* the first that has no `sent` yet; next is behind it after going back */
	uint32_t offset;	      /* bytes of it that have been sent */
	bool loaded;		      /* request holds it */
	bool failed;		      /* nothing more is sent: a request between head and started has failed */
	bool blocked;		      /* the next one waits for others to complete */
	uint32_t psn, acked;	      /* the next to send; all before `acked` have been acknowledged */
	uint32_t reads;		      /* responses that are outstanding */
	uint8_t retries, rnr_retries; /* used up */
	bool waiting;		      /* for the RNR timer, or parked */
	uint64_t deadline;
	struct rnic_event retry_event, wait_event;
};

struct rnic_responder {
	struct rnic_queue queue; /* the own receive queue */
	uint32_t psn;		 /* expected */
	bool nak_sent;
	/* The message that is arriving. */
	bool in_message, dropping, has_receive;
	uint8_t opcode;
	uint32_t received, length;
	uint64_t address;
	uint32_t rkey;
	uint32_t srqn; /* of XRC: which queue the message named */
	struct rnic_taken *taken;
	struct rnic_reply *replies;
	uint32_t reply_head, reply_tail;
	struct rnic_atomic_result results[RNIC_MAX_READS];
	uint32_t next_result;
};

/* One handle of a QP; more than one only of shared XRC targets. */
struct rnic_qp_ref {
	struct rnic_object object;
	struct rnic_qp *qp;
	struct rnic_node node;
	uint64_t cookie;
};

struct rnic_qp {
	struct rnic_link link; /* by its QPN */
	struct rnic_device *device;
	struct rnic_node refs;
	enum ibv_qp_type type;
	enum ibv_qp_state state;
	struct rnic_pd *pd;
	struct rnic_cq *send_cq, *recv_cq;
	struct rnic_srq *srq;
	struct rnic_domain *domain;
	struct ibv_qp_cap cap;
	bool sq_sig_all, drain_event, draining, last_wqe_told;
	bool granted; /* its turn on the wire */
	struct ibv_qp_attr attr;
	uint8_t sgid[16]; /* what the table said when it was connected */
	struct rnic_requester req;
	struct rnic_responder resp;
	struct rnic_node run, park, starves;
	struct rnic_node groups; /* struct rnic_member */
};

static inline uint32_t rnic_qpn(const struct rnic_qp *qp) { return qp->link.number; }
static inline bool rnic_acknowledges(const struct rnic_qp *qp)
{
	return qp->type == IBV_QPT_RC || qp->type == IBV_QPT_XRC_SEND || qp->type == IBV_QPT_XRC_RECV;
}
static inline uint32_t rnic_mtu_bytes(enum ibv_mtu mtu) { return 128u << mtu; }

struct rnic_qp *rnic_qp_find(const struct rnic_context *context, uint32_t handle);
void rnic_qp_event(struct rnic_qp *qp, enum ibv_event_type type);
void rnic_end_qp_ref(struct rnic_qp_ref *ref);
void rnic_runnable(struct rnic_qp *qp);
void rnic_park(struct rnic_qp *qp);
void rnic_wake_parked(struct rnic_fabric *fabric, uint32_t qpn);

/* --- state.c, flush.c --- */

int rnic_check_transition(const struct rnic_qp *qp, enum ibv_qp_state from, enum ibv_qp_state to, int mask);
int rnic_check_attributes(const struct rnic_qp *qp, const struct ibv_qp_attr *attr, int mask);
void rnic_to_error(struct rnic_qp *qp);
void rnic_to_reset(struct rnic_qp *qp);
/* Completes with a flush error whatever a QP that has left service still has in its queues. */
void rnic_flush(struct rnic_qp *qp);

/* --- wire.c --- */

enum rnic_packet_kind { RNIC_REQUEST, RNIC_ACK, RNIC_READ_DATA, RNIC_ATOMIC_VALUE, RNIC_DEPARTED };
enum rnic_packet_flags {
	RNIC_FIRST = 1,
	RNIC_LAST = 2,
	RNIC_SOLICITED = 4,
};

enum rnic_syndrome {
	RNIC_ACKNOWLEDGED,
	RNIC_NOT_READY, /* no receive: try again in a while */
	RNIC_BAD_SEQUENCE,
	RNIC_INVALID_REQUEST,
	RNIC_ACCESS_ERROR,
	RNIC_OPERATIONAL_ERROR,
};

struct rnic_packet {
	struct rnic_event event;
	struct rnic_device *from;
	uint8_t kind, flags, opcode, syndrome, timer, transport; /* transport: enum ibv_qp_type of the sender */
	uint8_t sgid[16], dgid[16];
	uint32_t qpn, source_qpn, psn, qkey, srqn, imm, rkey;
	uint64_t address, compare_add, swap;
	uint32_t length; /* of the whole message */
	uint32_t bytes;	 /* of it in here */
	uint32_t counter;
	uint32_t flow_label;
	uint8_t traffic_class, hop_limit;
	const unsigned char *data;
};

/* Whether the wire takes another piece now; if not, the QP waits for it and runs again then. */
bool rnic_wire_ready(struct rnic_qp *qp);
void rnic_wire_free(struct rnic_fabric *fabric, struct rnic_event *event);
/* Sends. `packet` and its data are the caller's again at return. When it leaves: the time. */
uint64_t rnic_transmit(struct rnic_device *from, const struct rnic_packet *packet);
/* What is on its way no longer counts for a device that ends. */
void rnic_packet_forget(struct rnic_event *event, const struct rnic_device *device);

/* --- request.c, complete.c, respond.c, reply.c, datagram.c --- */

/* One piece of work; false: there was none to do now. */
bool rnic_send_piece(struct rnic_qp *qp);
bool rnic_reply_piece(struct rnic_qp *qp);

void rnic_go_back(struct rnic_qp *qp, uint32_t psn);
void rnic_retire(struct rnic_qp *qp);
/* Something is unacknowledged: the retry timer runs from now on. */
void rnic_await(struct rnic_qp *qp);
/* Nobody was there for a request. */
void rnic_unheard(struct rnic_qp *qp, const struct rnic_packet *packet);
void rnic_acknowledged(struct rnic_qp *qp, const struct rnic_packet *packet);
void rnic_read_arrived(struct rnic_qp *qp, const struct rnic_packet *packet);
void rnic_atomic_arrived(struct rnic_qp *qp, const struct rnic_packet *packet);
void rnic_fail_request(struct rnic_qp *qp, uint32_t counter, enum ibv_wc_status status);
void rnic_retry_fired(struct rnic_fabric *fabric, struct rnic_event *event);
void rnic_wait_fired(struct rnic_fabric *fabric, struct rnic_event *event);
enum ibv_wc_status rnic_load(struct rnic_qp *qp, uint32_t counter, struct rnic_request *request);
enum ibv_wc_opcode rnic_wc_opcode(uint32_t opcode);

/* The PSN span of a piece of so many bytes. */
uint32_t rnic_packets_of(const struct rnic_qp *qp, uint32_t bytes);
static inline uint32_t rnic_psn_add(uint32_t psn, uint32_t by) { return (psn + by) & RNIC_PSN_MASK; }
static inline uint32_t rnic_psn_minus(uint32_t psn, uint32_t other) { return (psn - other) & RNIC_PSN_MASK; }
/* Whether psn is before other in the half of the circle that counts as the past. */
static inline bool rnic_psn_before(uint32_t psn, uint32_t other)
{
	return rnic_psn_minus(psn, other) > RNIC_PSN_MASK / 2;
}

void rnic_request_arrived(struct rnic_qp *qp, const struct rnic_packet *packet);
void rnic_datagram_arrived(struct rnic_qp *qp, const struct rnic_packet *packet);
void rnic_multicast(struct rnic_fabric *fabric, const struct rnic_packet *packet);
void rnic_leave_groups(struct rnic_qp *qp);

/* Queues a reply behind the ones that have not left yet. */
struct rnic_reply *rnic_reply_new(struct rnic_qp *qp);
void rnic_acknowledge(struct rnic_qp *qp, uint32_t psn, enum rnic_syndrome syndrome);
/* The shared queue that the arriving message takes its receive from, or NULL: the QP's own. */
struct rnic_srq *rnic_message_srq(const struct rnic_qp *qp, uint32_t srqn);
/* Whose regions its keys must belong to; NULL: nobody's. */
struct rnic_pd *rnic_message_pd(const struct rnic_qp *qp, uint32_t srqn);
/* Takes a receive for the message that is arriving: its own queue's or its shared queue's; false: there is none. */
bool rnic_take_receive(struct rnic_qp *qp);
void rnic_receive_done(struct rnic_qp *qp, const struct rnic_packet *packet, enum ibv_wc_status status, uint32_t bytes,
		       unsigned int flags);
bool rnic_is_fault(struct rnic_device *device, enum rnic_setting fault);
#endif
