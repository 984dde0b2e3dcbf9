/* The verbs objects of one end. */
#ifndef INTEGRITY_DEVICE_H
#define INTEGRITY_DEVICE_H

#include <infiniband/verbs.h>

#include "options.h"
#include "verdict.h"

struct region {
	uint8_t *memory;
	size_t size;
	struct ibv_mr *mr;
};

/* What the other end has to know. */
struct address {
	union ibv_gid gid;
	uint16_t lid;
	enum ibv_mtu mtu;
	uint8_t reads; /* READs and atomics under way at a time */
	uint64_t memory;
	uint32_t rkey;
	uint32_t srqn; /* of XRC */
};

struct device {
	const struct options *options;
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_comp_channel *channel;
	struct ibv_cq *send_cq, *recv_cq;
	struct ibv_xrcd *xrcd;
	struct ibv_srq *srq; /* NULL: each QP has its own receives */
	struct region sent, received, exposed;
	struct address here;
};

struct pair {
	struct ibv_qp *qp;
	struct ibv_qp *target; /* of XRC, which receives; else NULL, and qp does */
	uint32_t number, psn, target_number; /* as the other end was told */
	uint32_t their_number, their_psn, their_target;
	uint32_t max_inline, max_send, max_recv;
	struct ibv_srq *srq;
};

/* By which its receives complete. */
static inline uint32_t receiving_number(const struct pair *pair)
{
	return pair->target ? pair->target_number : pair->number;
}

static inline uint32_t receives_of(const struct options *options)
{
	return 2 * options->depth;
}

void device_open(struct device *device, const struct options *options, size_t exposed, struct verdict *verdict);
void device_close(struct device *device, struct verdict *verdict);

void pair_create(struct pair *pair, struct device *device, struct verdict *verdict);
void pair_listen(struct pair *pair, struct device *device, struct verdict *verdict); /* receives may be posted */
void pair_connect(struct pair *pair, struct device *device, const struct address *there, struct verdict *verdict);

/* Whether the application still sees what it saw at the beginning. */
void device_is_as_it_was(struct device *device, struct verdict *verdict);
void pair_is_as_it_was(struct pair *pair, struct verdict *verdict);

#endif
