/* Completions that were taken from the real queue before the application asked for them, or that we make ourselves. */
#ifndef MIGRRDMA_PATH_RING_H
#define MIGRRDMA_PATH_RING_H

#include "shadow/cq.h"

/* Makes room for `more`, until others use it up; 0 or ENOMEM. Must hold no lock. */
int mig_cq_ring_reserve(struct mig_cq *cq, uint32_t more);

/* The oldest ones, up to `entries`; how many. Must hold the lock. */
int mig_cq_ring_take(struct mig_cq *cq, int entries, struct ibv_wc *wc);

/* Must hold the lock, and have found room. */
static inline void mig_cq_ring_put(struct mig_cq *cq, const struct ibv_wc *wc)
{
	cq->ring[cq->ring_tail++ & (cq->ring_size - 1)] = *wc;
}

/* Whether it holds completions of that QP of ours; takes them out. Must hold no lock. */
int mig_cq_ring_has(struct mig_cq *cq, uint32_t qp_num);
void mig_cq_ring_purge(struct mig_cq *cq, uint32_t qp_num);

/* A completion that we owe the application; 0 or ENOMEM. Must hold no lock. */
int mig_cq_push(struct mig_cq *cq, const struct ibv_wc *wc);

#endif
