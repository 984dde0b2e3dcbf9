#include "move/quiesce.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/section.h"
#include "base/verb_gate.h"
#include "move/dead.h"
#include "move/marker.h"
#include "objects/mw_binding.h"
#include "objects/qp.h"
#include "path/hold.h"
#include "path/kept.h"
#include "path/poll.h"
#include "real/real.h"
#include "shadow/cq.h"
#include "shadow/find.h"
#include "shadow/marks.h"
#include "shadow/process.h"
#include "shadow/xrcd.h"

/* Within one quiesce only: the clock may jump when the process is moved, and a quiesce never spans that. */
static uint64_t deadline_ns;

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#define EACH_QP(context, qp)                                                                               \
	MIG_EACH_CONTEXT(context)                                                                          \
	MIG_EACH_OF(context, qps, qp, mig_qp)

void mig_select(const struct mig_selection *selection)
{
	EACH_QP(context, qp)
		qp->selected = selection->kind == MIG_SCOPE_ALL ||
			       (selection->kind == MIG_SCOPE_CONTEXT && context->id == selection->context);
	for (uint32_t i = 0; selection->kind == MIG_SCOPE_LISTED && i < selection->count; i++) {
		struct mig_qp *qp = mig_qp_by_name(selection->names[i].context, selection->names[i].vqpn);

		if (qp)
			qp->selected = 1;
	}
}

/* Whether something may be under way. */
static int is_to_be_marked(const struct mig_qp *qp)
{
	return !(MIG_GATE(qp->send_gate) & MIG_GATE_FRESH) &&
	       (qp->ibv.state >= IBV_QPS_RTS && qp->ibv.state <= IBV_QPS_SQE);
}

int mig_quiesce_begin(const struct mig_selection *selection, uint32_t timeout_ms, struct mig_qp_name *which, const char **why)
{
	deadline_ns = now_ns() + timeout_ms * 1000000ull;
	int error = mig_verb_gate_close((int)timeout_ms);

	if (error)
		return error;
	mig_select(selection);
	EACH_QP(context, qp) {
		if (!qp->selected)
			continue;
		/* No marker would tell. */
		if (!is_to_be_marked(qp) || !mig_is_reliable(qp))
			mig_qp_look(qp);
		/* It rests, and what is posted to it is flushed at once. */
		if (mig_is_dead(qp)) {
			qp->selected = 0;
			continue;
		}
		const char *mark = mig_mark_of(&qp->ibv);
		/* The next one of this queue pair alone would not have it, and another one cannot be bound as long as it is. */
		if (!mark && selection->kind == MIG_SCOPE_LISTED && mig_mw_bound_to(context, qp))
			mark = "a memory window that is bound to this queue pair";
		if (mark) {
			*which = (struct mig_qp_name){ context->id, qp->ibv.qp_num };
			*why = mark;
			mig_verb_gate_open();
			return ENOTSUP;
		}
	}
	EACH_QP(context, qp) {
		if (!qp->selected)
			continue;
		mig_hold(qp);
	}
	if (selection->kind != MIG_SCOPE_LISTED)
		MIG_EACH_CONTEXT(context)
			if (selection->kind == MIG_SCOPE_ALL || context->id == selection->context)
				context->at_rest = 1;
	/* From here on nobody is inside a post that saw the gate open. */
	mig_synchronize();
	EACH_QP(context, qp) {
		if (!qp->quiesced || !qp->selected)
			continue;
		MIG_LOCKED(&mig_send_cq(qp)->lock);
		if (qp->marker == MIG_MARKER_POSTED)
			qp->marker_again = 1;
		else if (!is_to_be_marked(qp))
			qp->marker = MIG_MARKER_DONE;
		else
			qp->marker = MIG_MARKER_WANTED;
	}
	mig_verb_gate_open();
	mig.state = MIG_STATE_QUIESCING;
	return 0;
}

static void advance(struct mig_qp *qp)
{
	struct mig_lock *lock = mig_lock(&mig_send_cq(qp)->lock);

	if (qp->marker != MIG_MARKER_POSTED && qp->marker_again) {
		qp->marker_again = 0;
		qp->marker = MIG_MARKER_WANTED;
	}
	int wanted = qp->marker == MIG_MARKER_WANTED, posted = qp->marker == MIG_MARKER_POSTED;
	mig_unlock(lock);
	if (wanted && qp->build) {
		/* It holds the real queue's lock. */
		if (mig_is_building(qp))
			return;
		mig_synchronize();
	}
	/* What the application has stopped before it began would not begin, and nobody has a copy of it; nor would the marker. */
	if ((wanted || posted) && mig_qp_resume_stopped(qp))
		return;
	/* Many QPs on one queue would else take as many walks over all of them as it has room for markers. */
	if (wanted && !mig_marker_post(qp) && !mig_cq_collect(mig_send_cq(qp), 0))
		mig_marker_post(qp);
}

static int has_come_back(struct mig_qp *qp, enum mig_marker how)
{
	MIG_LOCKED(&mig_send_cq(qp)->lock);
	return qp->marker == how && !qp->marker_again;
}

/* Of UC a marker may fail alone with the other sends. If not even that is so any more, another one is sent. */
static int is_drained(struct mig_qp *qp)
{
	if (mig_is_building(qp))
		return 0;
	if (!has_come_back(qp, MIG_MARKER_FAILED))
		return has_come_back(qp, MIG_MARKER_DONE);
	if (!qp->sends_failed) {
		MIG_LOCKED(&mig_send_cq(qp)->lock);
		qp->marker = MIG_MARKER_WANTED;
	}
	return qp->sends_failed;
}

static int collect_all(void)
{
	MIG_EACH_CONTEXT(context)
		MIG_EACH_OF(context, cqs, cq, mig_cq) {
			int error = cq->gated ? mig_cq_collect(cq, 0) : 0;

			if (error)
				return error;
		}
	return 0;
}

int mig_quiesce_step(struct mig_qp_name *names, uint32_t room, uint32_t *count)
{
	int error = mig_verb_gate_close(1000), waiting = 0;
	struct mig_send *done = NULL;

	*count = 0;
	if (error)
		return now_ns() < deadline_ns ? EINPROGRESS : error;

	EACH_QP(context, qp)
		if (mig_is_held(qp))
			advance(qp);
	error = collect_all();
	EACH_QP(context, qp) {
		if (mig_is_held(qp) && has_come_back(qp, MIG_MARKER_FAILED))
			mig_qp_look(qp);
		if (mig_is_held(qp) && mig_is_dead(qp))
			mig_let_die(qp, &done);
		if (!mig_is_held(qp) || is_drained(qp))
			continue;
		waiting++;
		if (*count < room)
			names[(*count)++] = (struct mig_qp_name){ context->id, qp->ibv.qp_num };
	}
	if (!error && !waiting) {
		mig.state = MIG_STATE_QUIESCED;
	} else if (!error) {
		error = now_ns() < deadline_ns ? EINPROGRESS : ETIMEDOUT;
	}
	if (error && error != EINPROGRESS) {
		mig_log(MIG_LOG_WARN, "quiesce undone: %d QPs did not drain: %s", waiting, strerror(error));
		mig_quiesce_end();
	}
	mig_verb_gate_open();
	mig_send_free(done);
	return error;
}

/*
 * What was accepted and is refused now ends the QP, as an error that the device had found would: what is behind it must not
 * be sent. All of it completes in its order, and wakes whoever waits, since the device itself flushes it.
 */
static void flush(struct mig_qp *qp, struct mig_send **done)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_ERR };

	mig_send_flush(qp, done);
	if (qp->refusal != MIG_REFUSAL_SEEN)
		return;
	mig_log(MIG_LOG_WARN, "QP 0x%x: the device refuses a send that was kept: it is put into the error state", qp->ibv.qp_num);
	mig_real()->ibv_modify_qp(qp->real, &attr, IBV_QP_STATE);
	__atomic_store_n(&qp->broken, 1, __ATOMIC_RELAXED);
	mig_send_fail(qp);
	mig_send_flush(qp, done);
}

void mig_quiesce_end(void)
{
	struct mig_send *done = NULL;

	MIG_EACH_CONTEXT(context)
		context->at_rest = 0;
	EACH_QP(context, qp) {
		if (!qp->quiesced)
			continue;
		mig_lock(&mig_send_cq(qp)->lock);
		if (qp->marker != MIG_MARKER_POSTED)
			qp->marker = MIG_MARKER_NONE;
		qp->marker_again = 0;
		mig_unlock(&mig_send_cq(qp)->lock);
		mig_qp_stop_resumed(qp);
		if (qp->sends_failed && MIG_GATE(qp->send_gate) & MIG_GATE_FRESH) {
			mig_send_gate(qp, 0, MIG_GATE_FRESH);
			mig_marker_post_failure(qp);
		}
		mig_send_gate(qp, qp->stopped ? 0 : MIG_GATE_FLUSH, MIG_GATE_SHADOW);
		flush(qp, &done);
		mig_release(qp);
	}
	mig_send_free(done);
	mig.state = MIG_STATE_RUNNING;
}

int mig_quiesce_flush(void)
{
	struct mig_send *done = NULL;
	int left = 0;

	if (mig.state != MIG_STATE_RUNNING || mig_verb_gate_close(100))
		return 1;
	EACH_QP(context, qp) {
		if (!qp->quiesced)
			continue;
		flush(qp, &done);
		left += !mig_release(qp);
	}
	mig_verb_gate_open();
	mig_send_free(done);
	return left;
}
