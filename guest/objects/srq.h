/* Shared receive queues, from their making to their end; path/ posts to them. */
#ifndef MIGRRDMA_OBJECTS_SRQ_H
#define MIGRRDMA_OBJECTS_SRQ_H

#include "shadow/srq.h"

/* By which messages of XRC name this real one; of others it means nothing. */
uint32_t mig_srq_physical_number(struct ibv_srq *real);

void mig_srq_offer(struct mig_context *context);

/*
 * A QP that we do not shadow is about to use that queue, if any, and to complete its receives on that CQ. 0, or the errno of
 * why it must not.
 */
int mig_srq_used_by_stranger(struct ibv_srq *srq, struct ibv_cq *recv_cq);

#endif
