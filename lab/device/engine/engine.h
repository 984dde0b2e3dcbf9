/*
 * A software RDMA device: what a NIC and its kernel driver do, without a process, a thread or a libibverbs of its own.
 *
 * A *fabric* holds *devices* (one a host, with numbers, limits and a wire of its own). A *context* is one opening of a
 * device (the kernel's ufile): it owns objects, named by handles that are the context's own; closing it ends them all.
 * Application memory is reached through the context's `read` and `write`, time through the fabric's `now`; completions go
 * into the rings that were given at creation (ring.h), and everything else is told through `struct rnic_sinks`.
 *
 * Rules
 * - One lock, the caller's: no two calls on one fabric at the same time. Sinks are called with it held and must not call back.
 * - Integer functions return 0 or a positive errno, as verbs do.
 * - Nothing moves but in rnic_run: after filling a ring call rnic_doorbell, then rnic_run until it says that nothing is left to
 *   do now, and again at the time that rnic_next gives.
 * - Enumerations and flags are those of <infiniband/verbs.h>.
 */
#ifndef RNIC_ENGINE_H
#define RNIC_ENGINE_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

#include "ring.h"

struct rnic_fabric;
struct rnic_device;
struct rnic_context;

#define RNIC_NEVER UINT64_MAX

/* A piece of an application's address space. */
struct rnic_span {
	uint64_t address;
	uint64_t length;
};

enum rnic_kind {
	RNIC_PD,
	RNIC_MR,
	RNIC_MW,
	RNIC_CQ,
	RNIC_SRQ,
	RNIC_QP,
	RNIC_AH,
	RNIC_XRCD,
	RNIC_KINDS,
};

struct rnic_sinks {
	/* Gather from or scatter to the memory of the process behind the context; 0 or an errno (EFAULT: not mapped). */
	int (*read)(void *process, const struct rnic_span *spans, int count, void *buffer);
	int (*write)(void *process, const struct rnic_span *spans, int count, const void *buffer);
	/* An armed completion queue has something: `cookie` is the queue's. */
	void (*completion_event)(void *process, uint64_t cookie);
	/* For ibv_get_async_event. `kind` and `cookie` name the object (RNIC_CQ, RNIC_QP, RNIC_SRQ); port and device events
	 * have kind RNIC_KINDS and the port's number or 0 as cookie. */
	void (*async_event)(void *process, enum ibv_event_type type, enum rnic_kind kind, uint64_t cookie);
};

/* --- the fabric and its time --- */

/* now: nanoseconds, monotonic; it may stand still (then only what needs no time happens). */
struct rnic_fabric *rnic_fabric_new(uint64_t (*now)(void *clock), void *clock);
void rnic_fabric_free(struct rnic_fabric *fabric);

/* Does at most `messages` pieces of work that can be done now; whether more can. */
bool rnic_run(struct rnic_fabric *fabric, int messages);

/* When rnic_run has something to do if nobody calls anything: a time of the clock (maybe past), or RNIC_NEVER. */
uint64_t rnic_next(const struct rnic_fabric *fabric);

/* --- devices --- */

struct rnic_device *rnic_device_new(struct rnic_fabric *fabric, const char *name, const char *host);
void rnic_device_free(struct rnic_device *device); /* its contexts have been closed */

/*
 * Settings and faults by name, so that a command line, an environment and a test all say the same; settings.c has the table with
 * each name's meaning, unit and default. ENOENT: no such name. EINVAL: out of range.
 */
int rnic_set(struct rnic_device *device, const char *name, uint64_t value);
int rnic_get(const struct rnic_device *device, const char *name, uint64_t *value);
const char *rnic_setting_name(int index, const char **meaning); /* NULL behind the last */

/* A GID's place in the table; all zero: empty. type: enum ibv_gid_type_sysfs (1: RoCE v2). Raises IBV_EVENT_GID_CHANGE. */
int rnic_gid_set(struct rnic_device *device, int index, const uint8_t gid[16], int type, uint32_t ifindex);
int rnic_gid_get(const struct rnic_device *device, int index, uint8_t gid[16], int *type, uint32_t *ifindex);

/* Up or down: IBV_EVENT_PORT_ACTIVE or PORT_ERR; a downed port loses everything. */
void rnic_port(struct rnic_device *device, bool up);
/* The network between two devices: parted, it loses everything both ways. */
void rnic_part(struct rnic_device *one, struct rnic_device *other, bool parted);

/* An asynchronous event on request, about the object with that number (QPN, CQ: a QP's send queue; SRQN), or the port or device
 * (number ignored). ENOENT: no such object. */
int rnic_raise(struct rnic_device *device, enum ibv_event_type type, uint32_t number);

/*
 * A verdict for each call that a front makes on behalf of an application, by its name without ibv_ ("create_qp"): armed by
 * rnic_fault for the nth next call (1: the next; 0: every), with an errno (0: none) and a delay (RNIC_NEVER: no answer ever).
 * rnic_verdict returns the errno and stores the delay in ns; fronts ask it at every call's entry.
 */
int rnic_fault(struct rnic_device *device, const char *call, uint32_t nth, int error, uint64_t delay);
int rnic_verdict(struct rnic_device *device, const char *call, uint64_t *delay);

/* "overflows" (completions lost to a full queue), "errors" (completions with an error), "executed" (requests), "lost" (packets),
 * "qps", "mrs", "cqs", "srqs", "bytes" (put on the wire), "in_flight" (bytes on the wire now); UINT64_MAX: unknown name. */
uint64_t rnic_count(const struct rnic_device *device, const char *what);

/* Where numbers go on: the next QPN, and the next memory key. 0: as it is. Freed numbers come back before new ones unless
 * the setting reuse_numbers is 0. */
void rnic_numbers(struct rnic_device *device, uint32_t qpn, uint32_t key);

void rnic_query_device(const struct rnic_device *device, struct ibv_device_attr *attr);
void rnic_query_port(const struct rnic_device *device, struct ibv_port_attr *attr);

/* --- contexts --- */

struct rnic_context *rnic_open(struct rnic_device *device, const struct rnic_sinks *sinks, void *process);
/* Ends all its objects in the right order; their rings are not touched after it. */
void rnic_close(struct rnic_context *context);

/* --- objects: *handle names it in its context from then on --- */

int rnic_alloc_pd(struct rnic_context *context, uint32_t *pd);
int rnic_dealloc_pd(struct rnic_context *context, uint32_t pd);

/* Opened by a name of the device's (an inode's number) so that processes share it; name 0: private. O_CREAT, O_EXCL in flags. */
int rnic_open_xrcd(struct rnic_context *context, uint64_t name, int flags, uint32_t *xrcd);
int rnic_close_xrcd(struct rnic_context *context, uint32_t xrcd);

int rnic_reg_mr(struct rnic_context *context, uint32_t pd, uint64_t address, uint64_t length, uint64_t iova, unsigned int access,
		uint32_t *mr, uint32_t *lkey, uint32_t *rkey);
/* As ibv_rereg_mr: flags of enum ibv_rereg_mr_flags. */
int rnic_rereg_mr(struct rnic_context *context, uint32_t mr, int flags, uint32_t pd, uint64_t address, uint64_t length,
		  unsigned int access, uint32_t *lkey, uint32_t *rkey);
int rnic_dereg_mr(struct rnic_context *context, uint32_t mr);

int rnic_alloc_mw(struct rnic_context *context, uint32_t pd, enum ibv_mw_type type, uint32_t *mw, uint32_t *rkey);
int rnic_dealloc_mw(struct rnic_context *context, uint32_t mw);

/* Checks the route and holds the PD: the route itself travels with each request. */
int rnic_create_ah(struct rnic_context *context, uint32_t pd, const struct rnic_route *route, uint32_t *ah);
int rnic_destroy_ah(struct rnic_context *context, uint32_t ah);

/* ring: of struct rnic_completion, depth = cqe, initialised by the caller. */
int rnic_create_cq(struct rnic_context *context, struct rnic_ring *ring, uint64_t cookie, uint32_t *cq);
/* What has not been polled moves over; EINVAL if it does not fit. The consumer must not poll meanwhile. */
int rnic_resize_cq(struct rnic_context *context, uint32_t cq, struct rnic_ring *ring);
int rnic_destroy_cq(struct rnic_context *context, uint32_t cq);

struct rnic_srq_init {
	uint32_t pd;
	enum ibv_srq_type type; /* IBV_SRQT_BASIC, IBV_SRQT_XRC */
	uint32_t xrcd, cq;	/* of XRC ones */
	uint32_t max_wr, max_sge, limit;
	uint64_t cookie;
	struct rnic_ring *ring; /* of struct rnic_receive, depth = max_wr */
};

int rnic_create_srq(struct rnic_context *context, const struct rnic_srq_init *init, uint32_t *srq, uint32_t *srqn);
/* Limit: 0 disarms. EINVAL beyond the depth. ring: NULL, or the larger one (ibv_modify_srq's max_wr). */
int rnic_modify_srq(struct rnic_context *context, uint32_t srq, const uint32_t *limit, struct rnic_ring *ring);
int rnic_query_srq(struct rnic_context *context, uint32_t srq, struct ibv_srq_attr *attr);
int rnic_destroy_srq(struct rnic_context *context, uint32_t srq);

/* A handle that stands for "none". */
#define RNIC_NONE UINT32_MAX

struct rnic_qp_init {
	enum ibv_qp_type type;
	uint32_t pd, send_cq, recv_cq, srq, xrcd; /* RNIC_NONE where there is none */
	struct ibv_qp_cap cap;			  /* what is granted: the caller has made its rings for it (rnic_qp_caps) */
	bool sq_sig_all;
	uint64_t cookie;
	struct rnic_ring *sq, *rq; /* of struct rnic_send, struct rnic_receive; NULL: no such queue */
};

/* Turns what was asked for into what the device grants, or EINVAL beyond its limits; strides for the rings. */
int rnic_qp_caps(const struct rnic_device *device, enum ibv_qp_type type, struct ibv_qp_cap *cap, uint32_t *sq_stride,
		 uint32_t *rq_stride);
int rnic_create_qp(struct rnic_context *context, const struct rnic_qp_init *init, uint32_t *qp, uint32_t *qpn);
/* Handle of an XRC target in another process's domain (ibv_open_qp). */
int rnic_open_qp(struct rnic_context *context, uint32_t xrcd, uint32_t qpn, uint64_t cookie, uint32_t *qp);
int rnic_modify_qp(struct rnic_context *context, uint32_t qp, const struct ibv_qp_attr *attr, int mask);
int rnic_query_qp(struct rnic_context *context, uint32_t qp, struct ibv_qp_attr *attr);
int rnic_destroy_qp(struct rnic_context *context, uint32_t qp);

struct rnic_qp_shown {
	uint32_t qpn, peer_qpn;
	enum ibv_qp_type type;
	enum ibv_qp_state state;
	bool connected; /* peer_qpn is one */
};

/* The context's next queue pair; *at is 0 at first. Returns whether there was one more. */
bool rnic_next_qp(const struct rnic_context *context, uint32_t *at, struct rnic_qp_shown *shown);

int rnic_attach(struct rnic_context *context, uint32_t qp, const uint8_t gid[16], uint16_t lid);
int rnic_detach(struct rnic_context *context, uint32_t qp, const uint8_t gid[16], uint16_t lid);

/* The queues of this QP or SRQ have something new. Cheap. */
int rnic_doorbell(struct rnic_context *context, uint32_t qp);
int rnic_srq_doorbell(struct rnic_context *context, uint32_t srq);

/* Whether posting to the send (receive) queue is allowed in the QP's state: 0 or EINVAL. */
int rnic_may_send(struct rnic_context *context, uint32_t qp);
int rnic_may_receive(struct rnic_context *context, uint32_t qp);
#endif
