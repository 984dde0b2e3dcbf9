/* Queue pairs, and the states they are in: qp.c, state.c, flush.c. */
#ifndef RNIC_QP_H
#define RNIC_QP_H

#include "objects.h"

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
	/* It has said that it was not ready, and nothing has been posted since. */
	bool starving;
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
#endif
