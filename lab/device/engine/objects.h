/* What a context owns but for queue pairs: context.c, memory.c, window.c, queue.c, cq.c, srq.c. */
#ifndef RNIC_OBJECTS_H
#define RNIC_OBJECTS_H

#include "device.h"

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
uint32_t rnic_key_variant(struct rnic_device *device);

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
#endif
