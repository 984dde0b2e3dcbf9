/*
 * Extended completion queues, as far as a completion is a plain one: then a walk by start_poll, next_poll, end_poll
 * takes the completions one by one from the same place as ibv_poll_cq, and the read functions show the last.
 */
#ifndef MIGRRDMA_OBJECTS_CQ_EX_H
#define MIGRRDMA_OBJECTS_CQ_EX_H

#include "shadow/cq.h"

void mig_cq_ex_offer(struct mig_context *context);

#endif
