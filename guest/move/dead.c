#include "move/dead.h"

#include <errno.h>
#include <time.h>

#include "base/section.h"
#include "move/marker.h"
#include "objects/qp.h"
#include "path/hold.h"
#include "path/kept.h"
#include "path/poll.h"
#include "path/recv.h"
#include "real/real.h"
#include "shadow/cq.h"
#include "shadow/process.h"
#include "shadow/xrcd.h"

void mig_let_die(struct mig_qp *qp, struct mig_send **done)
{
	struct mig_lock *lock = mig_lock(&mig_send_cq(qp)->lock);

	if (qp->marker != MIG_MARKER_POSTED)
		qp->marker = MIG_MARKER_NONE;
	qp->marker_again = 0;
	mig_unlock(lock);
	mig_qp_give_up(mig_context(qp->ibv.context), qp);
	mig_send_gate(qp, MIG_GATE_FLUSH, MIG_GATE_SHADOW);
	mig_send_flush(qp, done);
	mig_release(qp);
}

void mig_hold_dead(void)
{
	MIG_EACH_CONTEXT(context)
		MIG_EACH_OF(context, qps, qp, mig_qp)
			if (mig_is_dead(qp))
				mig_hold(qp);
}

/* A flush is a matter of microseconds; this is for a device that does not flush at all. */
#define MOST_NAPS 5000

/*
 * Also again, of one that is there: Soft-RoCE flushes the receives that there are when it is brought into the error state, and
 * none that are posted later.
 */
static void to_error(struct mig_qp *qp)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_ERR };

	mig_real()->ibv_modify_qp(qp->real, &attr, IBV_QP_STATE);
}

/* Whose marker is wanted, and not there yet. */
static int lacks(struct mig_cq *cq, const enum mig_marker *marker)
{
	MIG_LOCKED(&cq->lock);
	return *marker == MIG_MARKER_WANTED;
}

static int is_awaited(struct mig_cq *cq, const enum mig_marker *marker)
{
	MIG_LOCKED(&cq->lock);
	return *marker == MIG_MARKER_WANTED || *marker == MIG_MARKER_POSTED;
}

static int settle(struct mig_qp *qp)
{
	const struct timespec nap = { 0, 200000 };
	struct mig_cq *send_cq = mig_send_cq(qp), *recv_cq = mig_recv_cq(qp);
	int naps = 0, error = 0;

	/* One that shares its receives flushes none, and would say once more that it takes no more of them. */
	if (!qp->shares)
		to_error(qp);
	mig_lock(&send_cq->lock);
	if (qp->marker == MIG_MARKER_POSTED)
		qp->marker_again = 1;
	else
		qp->marker = MIG_GATE(qp->send_gate) & MIG_GATE_FRESH ? MIG_MARKER_DONE : MIG_MARKER_WANTED;
	mig_unlock(&send_cq->lock);
	qp->recv_marker = mig_recv_outstanding(qp) ? MIG_MARKER_WANTED : MIG_MARKER_DONE;
	for (;;) {
		int building = mig_is_building(qp);

		if (qp->build && !building)
			mig_synchronize();
		if (!building && lacks(send_cq, &qp->marker))
			mig_marker_post(qp);
		if (lacks(recv_cq, &qp->recv_marker)) {
			mig_marker_post_recv(qp);
			to_error(qp);
		}
		error = mig_cq_collect(send_cq, 1);
		if (!error && recv_cq != send_cq)
			error = mig_cq_collect(recv_cq, 1);
		if (error)
			return error;
		mig_lock(&send_cq->lock);
		if (qp->marker_again && qp->marker != MIG_MARKER_POSTED) {
			qp->marker_again = 0;
			qp->marker = MIG_MARKER_WANTED;
		}
		mig_unlock(&send_cq->lock);
		if (!building && !is_awaited(send_cq, &qp->marker) && !is_awaited(recv_cq, &qp->recv_marker))
			break;
		if (naps++ == MOST_NAPS)
			return ETIMEDOUT;
		nanosleep(&nap, NULL);
	}
	mig_recv_flushed(qp);
	qp->settled = 1;
	return 0;
}

int mig_settle_dead(struct mig_qp_name *which)
{
	/* What is collected with one's flushes may say that another one has failed. */
	for (int found = 1; found;) {
		found = 0;
		MIG_EACH_CONTEXT(context)
			MIG_EACH_OF(context, qps, qp, mig_qp) {
				if (!mig_is_reliable(qp) && __atomic_load_n(&qp->broken, __ATOMIC_RELAXED))
					mig_qp_look(qp);
				if (!mig_is_dead(qp) || qp->settled)
					continue;
				found = 1;
				int error = settle(qp);

				if (error) {
					*which = (struct mig_qp_name){ context->id, qp->ibv.qp_num };
					return error;
				}
			}
	}
	return 0;
}
