/*
 * XRC domains. A target queue pair belongs to one instead of a protection domain. It has neither a send queue nor completion
 * queues: each message names a shared receive queue of the domain by number, which says where it goes, where it completes and
 * whose memory it may reach.
 */
#ifndef MIGRRDMA_SHADOW_XRCD_H
#define MIGRRDMA_SHADOW_XRCD_H

#include "shadow/cq.h"
#include "shadow/qp.h"

struct mig_xrcd {
	struct ibv_xrcd ibv;
	struct ibv_xrcd *real, *next;
	uint32_t id; /* what the agent is told in the place of a protection domain's: no such domain has it */
	int fd; /* by which other processes find it: the application's file, on a descriptor of our own; or -1 */
	/* In the place of its targets' completion queues. It has no real one, and nothing ever comes there. */
	struct mig_cq nothing;
	struct mig_link link;
};

MIG_SHADOW(xrcd, ibv_xrcd, mig_xrcd)

static inline int mig_is_target(const struct mig_qp *qp)
{
	return qp->ibv.qp_type == IBV_QPT_XRC_RECV;
}

static inline struct mig_cq *mig_send_cq(const struct mig_qp *qp)
{
	return mig_is_target(qp) ? &qp->xrcd->nothing : mig_cq(qp->ibv.send_cq);
}

/* Of one that sends by XRC, and never receives, the application may have named none. */
static inline struct mig_cq *mig_recv_cq(const struct mig_qp *qp)
{
	return qp->ibv.qp_type == IBV_QPT_XRC_SEND ? mig_send_cq(qp) :
	       mig_is_target(qp)		   ? &qp->xrcd->nothing :
						     mig_cq(qp->ibv.recv_cq);
}

#endif
