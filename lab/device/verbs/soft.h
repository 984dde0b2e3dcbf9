/*
 * The objects of this libibverbs. Each begins with the public structure, the rest is ours: who is handed something else
 * reads what is not there, as a real provider does.
 */
#ifndef SOFT_H
#define SOFT_H

#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdbool.h>

#include "../engine/engine.h" /* kinds of objects and RNIC_NONE only: its functions are behind the link */
#include "../link/link.h"

/* verbs.h puts inline functions of the same names before these. */
#undef ibv_query_port
#undef ibv_reg_mr
#undef ibv_reg_mr_iova

struct soft_device {
	struct ibv_device ibv;
	struct rnic_listed listed;
	struct soft_device *next;
};

/* Where events are taken from: queue and descriptor. */
struct soft_events {
	struct rnic_events *queue;
	int fd;
	pthread_mutex_t lock; /* of those who take */
};

struct soft_context {
	struct verbs_context verbs; /* the public part is at its end */
	struct device_link *link;
	struct soft_events async;
	pthread_mutex_t async_lock; /* of the counts of asynchronous events of all its objects */
};

struct soft_pd {
	struct ibv_pd ibv;
	bool is_parent_domain;
	struct ibv_parent_domain_init_attr attr; /* of a parent domain */
};

/* More than a device has. */
#define SOFT_MAX_DM (256 << 10)

/* What a parent domain's own allocator has given to a queue, as to the doorbells of mlx5. */
struct soft_owned {
	struct soft_pd *pd; /* NULL: nothing */
	void *memory;
};

struct soft_xrcd {
	struct ibv_xrcd ibv;
	uint32_t handle;
};

struct soft_mr {
	struct ibv_mr ibv;
	struct soft_dm *dm;
	unsigned int access; /* as it was asked for: of the optional rights the device is not told */
};

struct soft_mw {
	struct ibv_mw ibv;
};

struct soft_dm {
	struct ibv_dm ibv;
	char *memory; /* of the process, which nobody but the device is told of */
	size_t length;
	uint32_t users; /* regions */
};

struct soft_ah {
	struct ibv_ah ibv;
	struct rnic_route route;
};

struct soft_channel {
	struct ibv_comp_channel ibv;
	uint32_t handle;
	struct soft_events events;
};

struct soft_cq {
	union {
		struct ibv_cq ibv;
		struct ibv_cq_ex ex;
	};
	pthread_mutex_t lock; /* of those who poll */
	struct rnic_ring *ring;
	const struct rnic_completion *current; /* of an extended walk */
	bool single_threaded;
	struct soft_owned owned;
	struct ibv_moderate_cq moderation; /* kept, and of no effect */
	uint32_t events, async_events; /* given to the application; under the public mutex */
};

struct soft_srq {
	struct ibv_srq ibv;
	pthread_mutex_t lock; /* of those who post */
	struct rnic_ring *ring;
	uint32_t max_sge, number;
	uint32_t async_events;
};

struct soft_qp {
	union {
		struct ibv_qp ibv;
		struct ibv_qp_ex ex;
	};
	struct ibv_qp_init_attr init;
	bool is_extended;
	struct soft_owned owned;
	struct ibv_qp_rate_limit_attr rate; /* likewise */
	pthread_mutex_t send_lock, recv_lock; /* of those who post */
	struct rnic_ring *sq, *rq;
	/* between wr_start and wr_complete, under send_lock */
	struct rnic_send *building;
	uint32_t built;
	int build_error;
	uint32_t async_events;
};

static inline struct soft_context *soft_context(struct ibv_context *ibv)
{
	return (struct soft_context *)((char *)ibv - offsetof(struct soft_context, verbs.context));
}

static inline struct device_link *soft_link(struct ibv_context *ibv, const char *function)
{
	struct device_link *link = soft_context(ibv)->link;

	if (__builtin_expect(__atomic_load_n(&link->left_behind, __ATOMIC_RELAXED), 0))
		device_link_check(link, function);
	return link;
}

/* Whether a call of the data path fails on request; one load while nobody asks for that. */
static inline int soft_fault(struct device_link *link, const char *verb)
{
	int soft_ask_fault(struct device_link *link, const char *verb);

	return __builtin_expect(__atomic_load_n(link->faults, __ATOMIC_RELAXED), 0) ? soft_ask_fault(link, verb) : 0;
}

/*
 * Whether the object's device is gone and its end is nevertheless allowed: then nobody is asked. Who is not allowed must not touch it.
 */
bool soft_ends_alone(struct ibv_context *context, const char *function);

/*
 * A call that ends an object. As in libibverbs it may be allowed to fail, of a device that is gone: then it is 0, and what remains to
 * be done is to free the object; nobody can be asked, and nobody is waited for.
 */
int soft_end(struct ibv_context *context, uint32_t name, uint32_t handle, const char *function);
static inline bool soft_is_gone(struct ibv_context *context)
{
	return __atomic_load_n(&soft_context(context)->link->left_behind, __ATOMIC_RELAXED);
}

/* events.c: 0, or -1 with errno as read(2) gives it. */
int soft_events_take(struct soft_events *events, struct device_link *link, struct rnic_event *event);
void soft_events_forget(struct soft_events *events, uint32_t kind, uint64_t cookie);

/* The parts of a context's tables, each filled in where the functions are. */
void soft_fill_memory(struct verbs_context *verbs);
void soft_fill_cq(struct verbs_context *verbs);
void soft_fill_srq(struct verbs_context *verbs);
void soft_fill_qp(struct verbs_context *verbs);
void soft_fill_send(struct verbs_context *verbs);
void soft_fill_query(struct verbs_context *verbs);
/* What a test builds in beside them: objects that this device does not have. */
__attribute__((weak)) void soft_fill_more(struct verbs_context *verbs);

/* memory.c: 0 or ENOMEM. */
int soft_own(struct soft_owned *owned, struct ibv_pd *pd);
void soft_disown(struct soft_owned *owned);

/* qp_ex.c */
int soft_fill_qp_ex(struct soft_qp *qp, uint64_t send_ops_flags);

/* cq_ex.c: 0 or EOPNOTSUPP for what cannot be read. */
int soft_fill_cq_ex(struct soft_cq *cq, const struct ibv_cq_init_attr_ex *attr);

/* cq.c */
void soft_completion_to_wc(const struct rnic_completion *completion, struct ibv_wc *wc);
/* What of this QP has not been polled vanishes, where the device is of that kind. */
void soft_purge(struct soft_qp *qp);

/* send.c: copies address and number of a datagram's receiver. */
void soft_set_ah(struct rnic_send *wqe, struct ibv_ah *ah, uint32_t qpn, uint32_t qkey);

#endif
