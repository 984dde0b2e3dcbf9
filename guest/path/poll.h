/* Polling completion queues: for the application, and for the control thread. */
#ifndef MIGRRDMA_PATH_POLL_H
#define MIGRRDMA_PATH_POLL_H

#include "shadow/cq.h"

/* What the context's operations point at. */
int mig_poll_cq(struct ibv_cq *cq, int entries, struct ibv_wc *wc);

/*
 * Takes what the real queue holds into the ring; also of a parked process when it is the last time. Must hold no
 * lock; the verb gate may be closed. 0 or an errno.
 */
int mig_cq_collect(struct mig_cq *cq, int last);

/* Likewise while the application's threads may be polling it. */
int mig_cq_collect_shared(struct mig_cq *cq);

#endif
