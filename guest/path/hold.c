#include "path/hold.h"

#include "path/kept.h"
#include "shadow/xrcd.h"

/* After closing, a grace period must pass before the real queue may be exchanged. */
void mig_cq_gate(struct mig_cq *cq, int change)
{
	MIG_LOCKED(&cq->lock);
	cq->gated += change;
	MIG_SET_GATE(cq->fast, NULL);
}

void mig_look_at_completions(struct mig_context *context, int why)
{
	if (context->translate & why)
		return;
	MIG_SET_GATE(context->translate, context->translate | why);
	MIG_EACH_OF(context, cqs, cq, mig_cq) {
		MIG_LOCKED(&cq->lock);
		MIG_SET_GATE(cq->fast, NULL);
	}
	/*
	 * Who polls just now has looked at the gate before: what comes for that reason must not be met by a poll that began earlier.
	 * Of one that is parked nobody has passed the gate, and its threads may be held until it is decided.
	 */
	if (!context->parked)
		mig_synchronize();
}

void mig_hold(struct mig_qp *qp)
{
	if (!qp->quiesced) {
		mig_cq_gate(mig_send_cq(qp), 1);
		mig_cq_gate(mig_recv_cq(qp), 1);
	}
	qp->quiesced = 1;
	mig_send_gate(qp, MIG_GATE_SHADOW, 0);
}

void mig_release_cqs(struct mig_qp *qp)
{
	mig_cq_gate(mig_send_cq(qp), -1);
	mig_cq_gate(mig_recv_cq(qp), -1);
}

int mig_release(struct mig_qp *qp)
{
	if (MIG_GATE(qp->send_gate) & MIG_GATE_FLUSH)
		return 0;
	qp->quiesced = 0;
	mig_release_cqs(qp);
	return 1;
}
