#include "path/kept.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cancel.h"
#include "base/section.h"
#include "path/notify.h"
#include "path/ring.h"
#include "path/send_real.h"
#include "path/window.h"
#include "shadow/cq.h"
#include "shadow/xrcd.h"

static void count_change(uint32_t *count, uint32_t before, uint32_t after)
{
	if (after && !before)
		__atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
	else if (before && !after)
		__atomic_sub_fetch(count, 1, __ATOMIC_RELAXED);
}

/*
 * Pollers look whether there is something to flush, and who ends an address handle whether something is kept, without a walk
 * over all QPs. Must hold the lock.
 */
static void set_gate(struct mig_qp *qp, uint32_t gate)
{
	const uint32_t kept = MIG_GATE_KEEP | MIG_GATE_FLUSH;
	struct mig_context *context = mig_context(qp->ibv.context);

	count_change(&context->flushing, qp->send_gate & MIG_GATE_FLUSH, gate & MIG_GATE_FLUSH);
	count_change(&context->keeping, qp->send_gate & kept, gate & kept);
	MIG_SET_GATE(qp->send_gate, gate);
}

/* The gate's bits change under the lock; sections look at the whole word. */
uint32_t mig_send_gate(struct mig_qp *qp, uint32_t set, uint32_t clear)
{
	MIG_LOCKED(&qp->send_lock);
	uint32_t before = qp->send_gate;

	set_gate(qp, (before & ~clear) | set);
	return before;
}

void mig_send_free(struct mig_send *list)
{
	while (list) {
		struct mig_send *next = list->next;

		free(list);
		list = next;
	}
}

/* A copy of one request with everything it points at. NULL: *error says why. */
static struct mig_send *keep(const struct mig_qp *qp, const struct ibv_send_wr *wr, int *error)
{
	size_t inlined = 0;

	if (wr->num_sge < 0 || wr->num_sge > (int)qp->cap.max_send_sge) {
		*error = EINVAL;
		return NULL;
	}
	if (wr->send_flags & IBV_SEND_INLINE) {
		for (int i = 0; i < wr->num_sge; i++)
			inlined += wr->sg_list[i].length;
		if (inlined > qp->cap.max_inline_data) {
			*error = EINVAL;
			return NULL;
		}
	}

	struct mig_send *send = malloc(sizeof(*send) + (size_t)(wr->num_sge + 1) * sizeof(send->sges[0]) + inlined);
	if (!send) {
		*error = ENOMEM;
		return NULL;
	}
	send->next = NULL;
	send->wr = *wr;
	mig_window_note(&send->wr);
	send->wr.next = NULL;
	send->wr.sg_list = send->sges;
	if (wr->num_sge)
		memcpy(send->sges, wr->sg_list, (size_t)wr->num_sge * sizeof(send->sges[0]));
	if (wr->send_flags & IBV_SEND_INLINE && wr->num_sge) {
		/* The application may reuse its buffers as soon as the call has returned. */
		char *data = (char *)&send->sges[wr->num_sge + 1], *end = data;

		for (int i = 0; i < wr->num_sge; i++) {
			memcpy(end, (void *)(uintptr_t)wr->sg_list[i].addr, wr->sg_list[i].length);
			end += wr->sg_list[i].length;
		}
		send->sges[0] = (struct ibv_sge){ .addr = (uintptr_t)data, .length = (uint32_t)inlined };
		send->wr.num_sge = 1;
	}
	return send;
}

int mig_send_keep(struct mig_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct mig_send *first = NULL, **end = &first;
	struct ibv_send_wr *one;
	int error = 0;

	/* What every device refuses cannot be refused by a return value any more once it is kept. */
	if (__atomic_load_n(&qp->ibv.state, __ATOMIC_RELAXED) < IBV_QPS_RTS || mig_is_target(qp)) {
		if (bad)
			*bad = wr;
		return EINVAL;
	}
	/* The copies are made before the lock is taken: an allocator may call back into verbs. */
	for (one = wr; one; one = one->next) {
		*end = keep(qp, one, &error);
		if (!*end)
			break;
		end = &(*end)->next;
	}

	mig_lock(&qp->send_lock);
	if (!(qp->send_gate & (MIG_GATE_KEEP | MIG_GATE_FLUSH))) {
		mig_unlock(&qp->send_lock);
		mig_send_free(first);
		return -1;
	}
	for (one = wr; first; one = one->next) {
		/* As much as the real queue would hold. */
		if (qp->kept_count >= qp->cap.max_send_wr) {
			error = ENOMEM;
			break;
		}
		struct mig_send *send = first;

		first = first->next;
		send->next = NULL;
		*qp->kept_end = send;
		qp->kept_end = &send->next;
		qp->kept_count++;
	}
	mig_unlock(&qp->send_lock);
	mig_send_free(first);
	if (error && bad)
		*bad = one;
	return error;
}

int mig_send_keep_all(struct mig_qp *qp, struct mig_send *first, struct mig_send **end, uint32_t count)
{
	if (__atomic_load_n(&qp->ibv.state, __ATOMIC_RELAXED) < IBV_QPS_RTS)
		return EINVAL;
	MIG_LOCKED(&qp->send_lock);
	if (!(qp->send_gate & (MIG_GATE_KEEP | MIG_GATE_FLUSH)))
		return -1;
	if (qp->kept_count + count > qp->cap.max_send_wr)
		return ENOMEM;
	*qp->kept_end = first;
	qp->kept_end = end;
	qp->kept_count += count;
	return 0;
}

/* One that the device does not even take in the error state, in the place of the flush. */
static void complete_with_error(struct mig_qp *qp, const struct mig_send *send)
{
	struct ibv_wc wc = { .wr_id = send->wr.wr_id, .status = IBV_WC_WR_FLUSH_ERR, .qp_num = qp->ibv.qp_num };

	if (!mig_cq_push(mig_send_cq(qp), &wc))
		mig_notify(mig_send_cq(qp));
}

void mig_send_flush(struct mig_qp *qp, struct mig_send **done)
{
	struct mig_send *refused = NULL, **refused_end = &refused;
	/* A doorbell may be a cancellation point, and the lock is held. */
	MIG_UNCANCELLED;

	mig_lock(&qp->send_lock);
	/*
	 * Who builds holds the real queue, maybe for long, and may need what we hold. While sends are kept nobody begins to: if it is
	 * seen once that nobody does, it stays so. Whoever looks for room again does it later.
	 */
	int is_in_use = mig_is_building(qp);
	while (!is_in_use && qp->kept && !(qp->send_gate & MIG_GATE_KEEP) && qp->refusal != MIG_REFUSAL_SEEN) {
		struct ibv_send_wr *bad = NULL;

		for (struct mig_send *send = qp->kept; send; send = send->next)
			send->wr.next = send->next ? &send->next->wr : NULL;
		int error = mig_send_kept(qp, qp->send_gate, &qp->kept->wr, &bad);
		while (qp->kept && (!error || &qp->kept->wr != bad)) {
			struct mig_send *posted = qp->kept;

			qp->kept = posted->next;
			qp->kept_count--;
			posted->next = *done;
			*done = posted;
			set_gate(qp, qp->send_gate & ~(uint32_t)MIG_GATE_FRESH);
		}
		if (error == ENOMEM || error == EAGAIN)
			break;
		if (error && qp->kept && qp->refusal == MIG_REFUSAL_NONE) {
			/* An error of the device would end the QP here, and what is behind would not be sent. */
			qp->refusal = MIG_REFUSAL_SEEN;
		} else if (error && qp->kept) {
			struct mig_send *send = qp->kept;

			qp->kept = send->next;
			qp->kept_count--;
			send->next = NULL;
			*refused_end = send;
			refused_end = &send->next;
		}
	}
	if (!qp->kept) {
		qp->kept_end = &qp->kept;
		set_gate(qp, qp->send_gate & ~(uint32_t)MIG_GATE_FLUSH);
	}
	mig_unlock(&qp->send_lock);

	for (struct mig_send *send = refused; send; send = send->next)
		complete_with_error(qp, send);
	*refused_end = *done;
	*done = refused ? refused : *done;
}

void mig_send_drop(struct mig_qp *qp, struct mig_send **done)
{
	MIG_LOCKED(&qp->send_lock);
	*qp->kept_end = *done;
	*done = qp->kept;
	qp->kept = NULL;
	qp->kept_end = &qp->kept;
	qp->kept_count = 0;
	qp->refusal = MIG_REFUSAL_NONE;
	set_gate(qp, qp->send_gate & ~(uint32_t)MIG_GATE_FLUSH);
}

void mig_send_fail(struct mig_qp *qp)
{
	MIG_LOCKED(&qp->send_lock);
	qp->refusal = MIG_REFUSAL_FAILED;
	if (qp->kept)
		qp->kept->wr = (struct ibv_send_wr){ .wr_id = qp->kept->wr.wr_id, .opcode = IBV_WR_RDMA_WRITE,
						     .send_flags = IBV_SEND_SIGNALED };
}

static int is_about(const struct ibv_send_wr *wr, const struct mig_mw *mw)
{
	return wr->opcode == IBV_WR_BIND_MW ? wr->bind_mw.mw == &mw->ibv :
					      wr->opcode == IBV_WR_LOCAL_INV && wr->invalidate_rkey >> 8 == mw->index;
}

int mig_send_is_about(struct mig_qp *qp, const struct mig_mw *mw)
{
	MIG_LOCKED(&qp->send_lock);
	for (const struct mig_send *send = qp->kept; send; send = send->next)
		if (is_about(&send->wr, mw))
			return 1;
	return 0;
}

void mig_send_forget_window(struct mig_qp *qp, const struct mig_mw *mw)
{
	MIG_LOCKED(&qp->send_lock);
	for (struct mig_send *send = qp->kept; send; send = send->next)
		if (is_about(&send->wr, mw))
			/* As a marker: move/marker.c. */
			send->wr = (struct ibv_send_wr){ .wr_id = send->wr.wr_id, .opcode = IBV_WR_RDMA_WRITE,
							 .send_flags = (send->wr.send_flags & IBV_SEND_SIGNALED) | IBV_SEND_FENCE };
}

int mig_send_binds_to(struct mig_qp *qp, const struct ibv_mr *mr)
{
	MIG_LOCKED(&qp->send_lock);
	for (const struct mig_send *send = qp->kept; send; send = send->next)
		if (send->wr.opcode == IBV_WR_BIND_MW && send->wr.bind_mw.bind_info.mr == mr)
			return 1;
	return 0;
}
