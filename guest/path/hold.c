#include "path/hold.h"

#include "path/kept.h"

/* After closing, a grace period must pass before the real queue may be exchanged. */
void mig_cq_gate(struct mig_cq *cq, int change)
{
	MIG_LOCKED(&cq->lock);
	cq->gated += change;
	MIG_SET_GATE(cq->fast, NULL);
}

void mig_hold(struct mig_qp *qp)
{
	if (!qp->quiesced) {
		mig_cq_gate(mig_cq(qp->ibv.send_cq), 1);
		mig_cq_gate(mig_cq(qp->ibv.recv_cq), 1);
	}
	qp->quiesced = 1;
	mig_send_gate(qp, MIG_GATE_SHADOW, 0);
}

void mig_release_cqs(struct mig_qp *qp)
{
	mig_cq_gate(mig_cq(qp->ibv.send_cq), -1);
	mig_cq_gate(mig_cq(qp->ibv.recv_cq), -1);
}

int mig_release(struct mig_qp *qp)
{
	if (MIG_GATE(qp->send_gate) & MIG_GATE_FLUSH)
		return 0;
	qp->quiesced = 0;
	mig_release_cqs(qp);
	return 1;
}
