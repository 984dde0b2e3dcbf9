/*
 * Queue pairs in SQD: their send queue takes requests and begins none. A move has no copy of what stands in the device's queue,
 * so what is sent in SQD is kept here, and what was there before is driven to completion by a drain as if it had just begun
 * when the application stopped it.
 */
#include "base/log.h"
#include "base/section.h"
#include "objects/qp.h"
#include "path/hold.h"
#include "path/kept.h"
#include "real/doorbell.h"
#include "real/real.h"
#include "shadow/cq.h"
#include "shadow/xrcd.h"

void mig_qp_stop(struct mig_qp *qp)
{
	if (!qp->stopped) {
		mig_cq_gate(mig_send_cq(qp), 1);
		mig_cq_gate(mig_recv_cq(qp), 1);
	}
	qp->stopped = 1;
	mig_send_gate(qp, MIG_GATE_STOPPED, 0);
	/* From here on nobody is inside a post that saw the gate open. */
	mig_synchronize();
}

void mig_qp_go_on(struct mig_qp *qp)
{
	struct mig_send *done = NULL;

	if (!qp->stopped)
		return;
	qp->stopped = 0;
	qp->resumed = NULL;
	/* Of one that is held the end of that sends what was kept. */
	mig_send_gate(qp, mig_is_held(qp) ? 0 : MIG_GATE_FLUSH, MIG_GATE_STOPPED);
	mig_send_flush(qp, &done);
	mig_send_free(done);
	/* Nothing is posted in a drain, which waits for what is in the queue. */
	if (mig_is_held(qp) && qp->ibv.state == IBV_QPS_RTS)
		mig_ring(qp->real);
	/* Whoever polls sends the rest, and is told to look by this count. */
	if (!qp->quiesced && MIG_GATE(qp->send_gate) & MIG_GATE_FLUSH)
		qp->quiesced = 1;
	else
		mig_release_cqs(qp);
}

static int change(struct mig_qp *qp, enum ibv_qp_state state)
{
	struct ibv_qp_attr attr = { .qp_state = state };

	return mig_real()->ibv_modify_qp(qp->real, &attr, IBV_QP_STATE);
}

int mig_qp_resume_stopped(struct mig_qp *qp)
{
	if (qp->ibv.state != IBV_QPS_SQD || qp->resumed == qp->real)
		return 0;
	int error = change(qp, IBV_QPS_RTS);

	if (error)
		return error;
	qp->resumed = qp->real;
	/* Soft-RoCE does not look into the queue when it is brought to RTS, but at the next post; there may be none. */
	mig_ring(qp->real);
	return 0;
}

void mig_qp_stop_resumed(struct mig_qp *qp)
{
	int error = qp->stopped && qp->resumed == qp->real ? change(qp, IBV_QPS_SQD) : 0;

	qp->resumed = NULL;
	if (error)
		mig_log(MIG_LOG_ERROR, "QP 0x%x is not in SQD again after a drain: errno %d", qp->ibv.qp_num, error);
}
