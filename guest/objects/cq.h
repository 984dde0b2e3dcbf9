/* Completion queues, from their making to their end; path/ polls them. */
#ifndef MIGRRDMA_OBJECTS_CQ_H
#define MIGRRDMA_OBJECTS_CQ_H

#include "shadow/cq.h"

/* The first real CQ of a shadow; sets cq->spare. NULL and errno. */
struct ibv_cq *mig_cq_make_sized(struct mig_cq *cq, struct ibv_context *real, struct ibv_comp_channel *channel,
				 int entries);

void mig_cq_offer(struct mig_context *context);

/* Completes a shadow whose real CQ is there. */
void mig_cq_add(struct mig_context *context, struct mig_cq *cq);

#endif
