/* Requests that were copied while they were built, given to the real queue. */
#ifndef MIGRRDMA_PATH_REPLAY_H
#define MIGRRDMA_PATH_REPLAY_H

#include "shadow/qp.h"

/*
 * All of a list together or none, in the numbers of the moment; 0 or what the real ibv_wr_complete says. The real
 * ibv_wr_start was called. In a section.
 */
int mig_replay(struct mig_qp *qp, struct mig_send *list);

#endif
