/* Posting receives, and remembering them until a message has used them. */
#ifndef MIGRRDMA_PATH_RECV_H
#define MIGRRDMA_PATH_RECV_H

#include "shadow/qp.h"

/* What the context's operations point at. */
int mig_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);

/* What is posted goes to qp->real. */
static inline void mig_recv_set_real(struct mig_qp *qp)
{
	qp->recv_real = qp->real;
	qp->post_recv = qp->real->context->ops.post_recv;
}

int mig_recv_init(struct mig_qp *qp);
void mig_recv_free(struct mig_qp *qp);

/* What was posted at that place of the ring of a UD QP, and has completed. In a section. */
const struct mig_recv *mig_recv_at(const struct mig_qp *qp, uint32_t position);
void mig_recv_clear(struct mig_qp *qp);

/* How many were posted since the QP was made, but for those that were forgotten with a reset. A snapshot likewise. */
uint32_t mig_recv_tail(const struct mig_qp *qp);

/* How many are posted and not known to be completed. A snapshot: the application may be posting and polling. */
static inline uint32_t mig_recv_outstanding(const struct mig_qp *qp)
{
	return mig_recv_tail(qp) - __atomic_load_n(&qp->head, __ATOMIC_RELAXED);
}

/*
 * Receives and the exchange of queues. Closing ends the fast way, for good after the next grace period; then parking
 * leaves everything to the ring; opening ends both.
 */
void mig_recv_close(struct mig_qp *qp);
void mig_recv_park(struct mig_qp *qp);

/* All that was posted before it was parked has completed: a QP that has failed flushes it. */
void mig_recv_flushed(struct mig_qp *qp);

/* Posts what the ring holds from *from on to that QP, and moves *from; 0 or an errno. Must hold recv_lock. */
int mig_recv_repost(struct mig_qp *qp, struct ibv_qp *real, const struct mig_keymap *lkeys, uint32_t *from);

/* Posts what was recorded while parked to the real queue and opens it, in one step. */
int mig_recv_open(struct mig_qp *qp);

#endif
