/*
 * What another state of a queue pair, or its end, means for what of it waits: completions that nobody has polled, sends that
 * are kept, and its part in a move under way.
 */
#include "base/keymap.h"
#include "base/section.h"
#include "objects/mw_binding.h"
#include "objects/purge.h"
#include "objects/qp.h"
#include "objects/qp_options.h"
#include "objects/xrcd.h"
#include "path/hold.h"
#include "path/kept.h"
#include "path/poll.h"
#include "path/recv.h"
#include "path/ring.h"
#include "real/real.h"
#include "shadow/cq.h"
#include "shadow/process.h"
#include "shadow/xrcd.h"

/*
 * Completions that a device leaves behind say by a number whose they are. A marker among them is told from the application's
 * sends, and a receive counted, only as long as that number means this QP in this life.
 */
void mig_qp_collect(struct mig_qp *qp)
{
	struct mig_context *context = mig_context(qp->ibv.context);
	if (mig_is_target(qp)) {
		if (mig_xrcd_collect(qp->xrcd))
			mig_cannot_quiesce("an XRC target whose completions could not be taken when it was reset or ended");
		return;
	}
	struct mig_cq *cqs[] = { mig_send_cq(qp), mig_recv_cq(qp) };

	for (int i = 0; i < 2 && (!i || cqs[1] != cqs[0]); i++) {
		if (mig_cq_collect_shared(cqs[i]))
			mig_cannot_quiesce("a QP whose completions could not be taken when it was reset or ended");
		/* What we took out of the device's queue before it would have gone with the QP there. */
		if (mig_cq_ring_has(cqs[i], qp->ibv.qp_num) && mig_device_purges(context))
			mig_cq_ring_purge(cqs[i], qp->ibv.qp_num);
	}
}

/* Its queues are empty, and it is nobody's peer. */
static void forget_work(struct mig_qp *qp)
{
	struct mig_keymap *rkeys = qp->rkeys, *srqns = qp->srqns;
	struct mig_send *dropped = NULL;

	mig_send_drop(qp, &dropped);
	qp->rkeys = qp->srqns = NULL;
	mig_qp_set_operations(qp);
	mig_send_gate(qp, MIG_GATE_FRESH, 0);
	/* Waits for the sections that may look at the keys, too. */
	mig_qp_collect(qp);
	mig_keymap_drop(rkeys);
	mig_keymap_drop(srqns);
	mig_mw_lose_qp(mig_context(qp->ibv.context), qp);
	mig_send_free(dropped);
	mig_recv_clear(qp);
	mig_qp_drop_marker(qp);
	qp->broken = qp->failed = qp->sends_failed = 0;
	__atomic_store_n(&qp->told_last, 0, __ATOMIC_RELAXED);
	qp->dest_pqpn = 0;
	qp->peer = 0;
	qp->psn_is_agreed = 0;
}

/*
 * A connection that is made while it is at rest, or is stopped and goes on again: the next one takes the same step. Whether it
 * has.
 */
static int next_follows(struct mig_qp *qp, enum ibv_qp_state from)
{
	struct ibv_qp_attr attr = qp->attr;
	enum ibv_qp_state to = qp->ibv.state;
	int connects = from == IBV_QPS_RTR && to == IBV_QPS_RTS;

	/* Of a successor nothing was sent yet, so that it is in no SQE to come back from. */
	if (from == IBV_QPS_SQE && to == IBV_QPS_RTS)
		return 1;
	if (!connects && !(from == IBV_QPS_RTS && to == IBV_QPS_SQD) && !(from == IBV_QPS_SQD && to == IBV_QPS_RTS))
		return 0;
	if (!qp->next || !qp->next_dest_pqpn)
		return 1; /* CONNECT will bring it there */
	attr.qp_state = to;
	attr.sq_psn = qp->next_sq_psn;
	if (mig_real()->ibv_modify_qp(qp->next, &attr, connects ? qp->masks[IBV_QPS_RTS] : IBV_QP_STATE))
		return 0;
	return !connects || !mig_qp_limit_rate_again(qp);
}

/* Of a process that rests altogether a QP stays at rest, whatever it is connected to, but for one that has failed. */
static int stays_at_rest(const struct mig_qp *qp)
{
	return mig_context(qp->ibv.context)->at_rest && qp->ibv.state <= IBV_QPS_RTS;
}

static void stay_at_rest(struct mig_qp *qp)
{
	MIG_LOCKED(&mig_send_cq(qp)->lock);
	/* After a reset nothing is under way. */
	if (qp->marker == MIG_MARKER_NONE)
		qp->marker = MIG_MARKER_DONE;
	qp->marker_again = 0;
}

void mig_qp_state_changed(struct mig_qp *qp, enum ibv_qp_state from)
{
	struct mig_send *done = NULL;

	if (qp->ibv.state == IBV_QPS_RESET)
		forget_work(qp);
	if (qp->ibv.state == IBV_QPS_RTS)
		qp->sends_failed = 0;
	if (qp->ibv.state != IBV_QPS_SQD)
		mig_qp_go_on(qp);
	/* One that had failed was not kept at rest; what it sends in its next life is for after the move. */
	if (qp->ibv.state == IBV_QPS_RESET && mig_context(qp->ibv.context)->at_rest)
		mig_hold(qp);
	if (!qp->quiesced && !qp->next)
		return;
	if (next_follows(qp, from))
		return;
	/* Else it would come back as what it was: in a state that it has left, facing whom it faces no more. */
	mig_qp_give_up(mig_context(qp->ibv.context), qp);
	if (!qp->quiesced)
		return;
	if (stays_at_rest(qp)) {
		stay_at_rest(qp);
		return;
	}
	/* What was kept is the device's, to send or to flush. */
	mig_send_gate(qp, MIG_GATE_FLUSH, MIG_GATE_SHADOW);
	mig_send_flush(qp, &done);
	mig_release(qp);
	mig_send_free(done);
}
