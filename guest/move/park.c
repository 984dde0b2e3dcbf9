/*
 * Letting go of the real objects and taking them up again. While a process is parked receives are recorded, verbs wait,
 * and nobody polls or asks for an event; so the objects may be exchanged, or the process be dumped.
 */
#include "move/rebuild.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "objects/object.h"
#include "base/verb_gate.h"

int mig_park(void)
{
	int error = mig_world_stop(1000);

	if (error)
		return error;
	MIG_EACH_CONTEXT(context) {
		MIG_SET_GATE(context->parked, 1);
		MIG_EACH_OF(context, cqs, cq, mig_cq)
			mig_cq_gate(cq, 1);
		MIG_EACH_OF(context, qps, qp, mig_qp)
			mig_recv_close(qp);
	}
	mig_synchronize();
	/* From here on receives are only recorded, and nobody polls: what is in the queues now is the rest. */
	MIG_EACH_CONTEXT(context) {
		MIG_EACH_OF(context, qps, qp, mig_qp)
			mig_recv_park(qp);
		MIG_EACH_OF(context, cqs, cq, mig_cq)
			if (!error)
				error = mig_cq_collect(cq, 1);
		MIG_EACH_OF(context, channels, channel, mig_channel)
			mig_channel_take_events(channel);
		if (!error)
			error = mig_context_take_events(context);
	}
	mig.state = MIG_STATE_PARKED;
	return error;
}

int mig_ask_for_events(struct mig_cq *cq, struct ibv_cq *real)
{
	int asked = __atomic_load_n(&cq->asked, __ATOMIC_ACQUIRE);

	return asked && cq->ibv.channel ? real->context->ops.req_notify_cq(real, asked == 1) : 0;
}

/*
 * The application may have asked for an event while there was nobody to ask, after completions had come. So ask,
 * then look: what came before is owed an event by us, what comes later raises its own.
 */
static void catch_up_on_events(struct mig_cq *cq)
{
	if (!__atomic_load_n(&cq->asked, __ATOMIC_ACQUIRE) || !cq->ibv.channel)
		return;
	if (mig_ask_for_events(cq, cq->real) || mig_cq_collect(cq, 0))
		mig_log(MIG_LOG_ERROR, "a CQ may miss an event: %s", strerror(errno));
	mig_lock(&cq->lock);
	int waiting = cq->ring_head != cq->ring_tail;
	mig_unlock(&cq->lock);
	if (waiting)
		mig_channel_owe(mig_comp_channel(cq->ibv.channel), cq);
}

int mig_unpark(struct mig_qp_name *which)
{
	int error = 0;

	MIG_EACH_CONTEXT(context) {
		if (!context->parked)
			continue;
		MIG_SET_GATE(context->parked, 0);
		/* Who asks for an event from here on asks the device; who asked before has left a note by now. */
		mig_synchronize();
		MIG_EACH_OF(context, qps, qp, mig_qp) {
			int failed = mig_recv_open(qp);

			if (failed)
				*which = (struct mig_qp_name){ context->id, qp->ibv.qp_num };
			error = error ? error : failed;
		}
		MIG_EACH_OF(context, cqs, cq, mig_cq) {
			catch_up_on_events(cq);
			mig_cq_gate(cq, -1);
		}
	}
	return error;
}
