/* Keeping the application from the real queues, and letting it go on with them. */
#ifndef MIGRRDMA_PATH_HOLD_H
#define MIGRRDMA_PATH_HOLD_H

#include "base/section.h"
#include "shadow/cq.h"
#include "shadow/qp.h"

/* How many reasons there are to poll under the lock: `change` more. Must not hold the CQ's lock. */
void mig_cq_gate(struct mig_cq *cq, int change);

/* From now on completions are looked at one by one, for one reason (enum mig_translate) more. Must hold context->lock, or have
 * the verb gate closed. */
void mig_look_at_completions(struct mig_context *context, int why);

/* Keeps what is sent from now on. Sections that have begun may still post. */
void mig_hold(struct mig_qp *qp);

/* Whether it is kept: not one that has only what was kept still to send. */
static inline int mig_is_held(const struct mig_qp *qp)
{
	return qp->quiesced && MIG_GATE(qp->send_gate) & MIG_GATE_SHADOW;
}

/* Whether it is in the error state, for all that is known here. No state but RESET follows. */
static inline int mig_is_dead(const struct mig_qp *qp)
{
	if (qp->failed || qp->ibv.state == IBV_QPS_ERR)
		return 1;
	/* After an error of UC the device has to be asked. */
	return mig_is_reliable(qp) && __atomic_load_n(&qp->broken, __ATOMIC_RELAXED);
}

/* Lets a QP go if nothing is kept for it any more; whether it has. */
int mig_release(struct mig_qp *qp);

/* Its CQs' part of that, of a QP that ends. */
void mig_release_cqs(struct mig_qp *qp);

#endif
