#include "objects/qp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/keymap.h"
#include "base/section.h"
#include "base/verb_gate.h"
#include "objects/async_event.h"
#include "objects/multicast.h"
#include "objects/mw_binding.h"
#include "objects/offer.h"
#include "objects/srq.h"
#include "path/build.h"
#include "path/hold.h"
#include "path/kept.h"
#include "path/recv.h"
#include "real/export.h"
#include "shadow/cq.h"
#include "shadow/find.h"
#include "shadow/pd.h"
#include "shadow/places.h"

static const char too_many_entries[] = "a QP with more than 256 scatter entries";
static const char unseen_completions[] = "a QP with an extended CQ";

/* Of XRC, which has no receives. */
static const char *foreign_sender(const struct ibv_qp_init_attr *attr)
{
	const struct mig_cq *cq = mig_cq(attr->send_cq);

	if (!cq)
		return unseen_completions;
	if (attr->cap.max_send_sge > MIG_MOST_SGES)
		return too_many_entries;
	/* A drain needs one. */
	return cq->real->context->ops.alloc_mw ? NULL : "an XRC QP on a device without memory windows";
}

/* Why a QP is made by the real library and left to it; NULL: we shadow it. */
static const char *foreign(const struct ibv_qp_init_attr *attr)
{
	if (attr->qp_type == IBV_QPT_XRC_SEND)
		return foreign_sender(attr);
	if (attr->qp_type != IBV_QPT_RC && attr->qp_type != IBV_QPT_UC && attr->qp_type != IBV_QPT_UD)
		return "a QP of an unusual type";
	if (attr->srq && (!mig_srq(attr->srq) || mig_srq(attr->srq)->raw))
		return attr->qp_type == IBV_QPT_UD ? "a UD QP with a shared receive queue that cannot be moved" :
						     "a QP with a shared receive queue that cannot be moved";
	if (!mig_cq(attr->send_cq) || !mig_cq(attr->recv_cq))
		return attr->qp_type == IBV_QPT_UD ? "a UD QP with an extended CQ" : unseen_completions;
	if (attr->cap.max_send_sge > MIG_MOST_SGES || attr->cap.max_recv_sge > MIG_MOST_SGES)
		return attr->qp_type == IBV_QPT_UD ? "a UD QP with more than 256 scatter entries" :
						     too_many_entries;
	return NULL;
}

static struct ibv_qp *make_foreign(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
	struct ibv_qp_init_attr theirs = *attr;

	theirs.send_cq = mig_real_cq(attr->send_cq);
	theirs.recv_cq = mig_real_cq(attr->recv_cq);
	theirs.srq = mig_real_srq(attr->srq);
	int error = mig_srq_used_by_stranger(attr->srq, attr->recv_cq);
	if (error) {
		errno = error;
		return NULL;
	}
	struct ibv_qp *qp = mig_real()->ibv_create_qp(mig_real_pd(pd), &theirs);
	if (qp)
		attr->cap = theirs.cap;
	return qp;
}

/* See ask_until_unique in mr.c: another number is asked of the device, not invented. */
static struct ibv_qp *make_until_unique(struct mig_context *context, struct ibv_pd *pd, struct ibv_xrcd *xrcd,
					struct ibv_qp_init_attr *init, uint64_t operations, uint32_t *extra)
{
	struct mig_refused refused = { 0 };
	struct ibv_qp *real = NULL, *other;
	int again = 1, error = 0;

	while (again && !error) {
		struct ibv_qp_init_attr attempt = *init;

		real = mig_qp_make_with_spare(pd, xrcd, &attempt, operations, extra);
		if (!real) {
			error = errno;
			break;
		}
		mig_lock(&context->lock);
		again = context->translate && mig_numbers_find(&context->vqpns, real->qp_num);
		mig_unlock(&context->lock);
		if (!again)
			*init = attempt;
		else if ((error = mig_refuse(&refused, real)))
			mig_real()->ibv_destroy_qp(real);
	}
	while ((other = mig_refused_next(&refused)))
		mig_real()->ibv_destroy_qp(other);
	if (error)
		errno = error;
	return error ? NULL : real;
}

static struct mig_qp *allocate(void)
{
	void *memory = NULL;

	if (posix_memalign(&memory, MIG_LINE, sizeof(struct mig_qp)))
		return NULL;
	return memset(memory, 0, sizeof(struct mig_qp));
}

static enum mig_receives how_it_receives(const struct mig_qp *qp)
{
	if (mig_is_datagram(qp))
		return MIG_RECEIVES_DATAGRAMS;
	return qp->shares ? MIG_RECEIVES_FROM_SLOTS : MIG_RECEIVES_FROM_ITS_RING;
}

/* In a protection domain or, of a target, in an XRC domain. With ibv_wr_* for these operations, if there are any. */
static struct ibv_qp *create(struct mig_context *context, struct ibv_pd *pd, struct mig_xrcd *xrcd, struct ibv_qp_init_attr *attr,
			     uint64_t operations)
{
	struct ibv_qp_init_attr theirs = *attr;
	struct mig_qp *qp = allocate();
	int error = ENOMEM;

	if (!qp || (operations && !(qp->build = calloc(1, sizeof(*qp->build)))))
		goto failed;
	if (qp->build)
		qp->build->operations = operations;
	theirs.qp_context = qp;
	theirs.send_cq = mig_real_cq(attr->send_cq);
	theirs.recv_cq = mig_real_cq(attr->recv_cq);
	theirs.srq = mig_real_srq(attr->srq);
	qp->real = make_until_unique(context, pd ? mig_real_pd(pd) : NULL, xrcd ? xrcd->real : NULL, &theirs, operations, &qp->extra_send);
	if (!qp->real) {
		error = errno;
		goto failed;
	}
	qp->init = *attr;
	qp->cap = theirs.cap;
	qp->cap.max_send_wr -= qp->extra_send;
	qp->kept_end = &qp->kept;
	qp->send_gate = MIG_GATE_FRESH;
	qp->ibv = *qp->real;
	qp->ibv.context = &context->verbs.context;
	qp->ibv.qp_context = attr->qp_context;
	qp->ibv.pd = pd;
	qp->xrcd = xrcd;
	qp->ibv.send_cq = attr->send_cq;
	qp->ibv.recv_cq = attr->recv_cq;
	qp->ibv.srq = attr->srq;
	/* Of XRC neither side has receives of its own. */
	qp->shares = attr->srq || xrcd || attr->qp_type == IBV_QPT_XRC_SEND;
	qp->receives = how_it_receives(qp);
	if (mig_recv_init(qp) || mig_qpn_reserve(context, qp->real->qp_num))
		goto failed;
	if (qp->build)
		mig_build_offer(qp);
	mig_qp_set_operations(qp);

	mig_lock(&context->lock);
	error = mig_numbers_add(&context->vqpns, qp->ibv.qp_num, qp);
	if (!error) {
		mig_list_add(&context->qps, &qp->link);
		context->datagram_qps += mig_is_datagram(qp);
		if (mig_is_datagram(qp) && (context->exchanged || mig_places))
			mig_look_at_completions(context, MIG_TRANSLATE_DATAGRAMS);
		mig_qpn_set(context, qp->real->qp_num, qp);
	}
	mig_unlock(&context->lock);
	if (error)
		goto failed;
	/* What it would send before the park, nobody would wait for. */
	if (context->at_rest) {
		mig_hold(qp);
		qp->marker = MIG_MARKER_DONE;
	}
	attr->cap = qp->cap;
	return &qp->ibv;

failed:
	if (qp && qp->real)
		mig_real()->ibv_destroy_qp(qp->real);
	mig_recv_free(qp);
	free(qp ? qp->build : NULL);
	free(qp);
	errno = error;
	return NULL;
}

struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
	MIG_VERB;
	const char *why = mig_pd(pd) ? foreign(attr) : "";
	if (!why)
		return create(mig_context(pd->context), pd, NULL, attr, 0);
	struct ibv_qp *qp = make_foreign(pd, attr);

	return *why ? mig_marked(pd->context, qp, why) : qp;
}

/* The two structures begin alike. */
static struct ibv_qp_init_attr *plain(const struct ibv_qp_init_attr_ex *attr)
{
	return (struct ibv_qp_init_attr *)(uintptr_t)attr;
}

int mig_qp_is_built_with(const struct ibv_qp_init_attr_ex *attr)
{
	const uint32_t needed = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;

	return attr->comp_mask == needed && attr->send_ops_flags &&
	       !(attr->send_ops_flags & ~(uint64_t)MIG_BUILD_OPERATIONS) && mig_pd(attr->pd) && mig_real()->ibv_qp_to_qp_ex && !foreign(plain(attr));
}

struct ibv_qp *mig_qp_create_to_build(struct ibv_qp_init_attr_ex *attr)
{
	return create(mig_context(attr->pd->context), attr->pd, NULL, plain(attr), attr->send_ops_flags);
}

int mig_qp_is_target(const struct ibv_qp_init_attr_ex *attr)
{
	const uint32_t known = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_XRCD;

	return attr->qp_type == IBV_QPT_XRC_RECV && attr->comp_mask & IBV_QP_INIT_ATTR_XRCD && !(attr->comp_mask & ~known) &&
	       mig_xrcd(attr->xrcd);
}

/* What else is in there means nothing to a target: the kernel does not look at it. */
struct ibv_qp *mig_qp_create_target(struct ibv_context *ibv, struct ibv_qp_init_attr_ex *attr)
{
	struct ibv_qp_init_attr init = { .qp_context = attr->qp_context, .qp_type = IBV_QPT_XRC_RECV, .cap = attr->cap };
	struct ibv_qp *qp = create(mig_context(ibv), NULL, mig_xrcd(attr->xrcd), &init, 0);

	if (qp)
		attr->cap = init.cap;
	return qp;
}

struct ibv_qp_ex *ibv_qp_to_qp_ex(struct ibv_qp *ibv)
{
	struct mig_qp *qp = mig_qp(ibv);

	if (qp)
		return qp->build ? &qp->ex : NULL;
	return mig_real()->ibv_qp_to_qp_ex ? mig_real()->ibv_qp_to_qp_ex(ibv) : NULL;
}

static int end_real_qp(struct mig_qp *qp)
{
	MIG_VERB_AS("ibv_destroy_qp");
	struct mig_context *context = mig_context(qp->ibv.context);
	uint32_t numbers[] = { qp->real->qp_num, qp->next ? qp->next->qp_num : qp->real->qp_num };

	/* A poller that finds room for kept sends must not post them to what is being ended; one that does just now is
	 * waited for by the lock. */
	uint32_t gate = mig_send_gate(qp, MIG_GATE_SHADOW, 0);
	int error = mig_real()->ibv_destroy_qp(qp->real);

	if (error) {
		/* As it was, but for what another thread may have posted meanwhile. */
		struct mig_send *done = NULL;

		if (!(gate & MIG_GATE_SHADOW)) {
			mig_send_gate(qp, MIG_GATE_FLUSH, MIG_GATE_SHADOW);
			mig_send_flush(qp, &done);
			mig_send_free(done);
		}
		return error;
	}
	mig_qp_collect(qp);
	mig_qp_end_marker(qp);
	if (qp->next)
		mig_real()->ibv_destroy_qp(qp->next);
	mig_lock(&context->lock);
	mig_list_remove(&qp->link);
	context->datagram_qps -= mig_is_datagram(qp);
	mig_numbers_remove(&context->vqpns, qp->ibv.qp_num, qp);
	for (int i = 0; i < 2; i++)
		if (mig_qp_by_pqpn(context, numbers[i]) == qp)
			mig_qpn_set(context, numbers[i], NULL);
	mig_unlock(&context->lock);
	mig_mw_lose_qp(context, qp);
	mig_context_forget_events(context, &qp->ibv);
	mig_qp_drop_marker(qp);
	mig_send_gate(qp, 0, MIG_GATE_KEEP | MIG_GATE_FLUSH);
	if (qp->quiesced)
		mig_release_cqs(qp);
	if (qp->stopped)
		mig_release_cqs(qp);
	return 0;
}

int ibv_destroy_qp(struct ibv_qp *ibv)
{
	struct mig_qp *qp = mig_qp(ibv);

	struct mig_mark *marks = mig_marks_take(ibv);
	int error = qp ? end_real_qp(qp) : mig_real()->ibv_destroy_qp(ibv);
	mig_marks_settle(marks, error);
	if (!qp)
		return error;
	if (error)
		return error;
	/* A poller may have found it in the table just before. */
	mig_synchronize();
	for (;;) {
		uint32_t seen = __atomic_load_n(&ibv->events_completed, __ATOMIC_ACQUIRE);

		if (seen == __atomic_load_n(&qp->async_events, __ATOMIC_RELAXED))
			break;
		mig_futex_wait((int *)&ibv->events_completed, (int)seen, -1);
	}
	mig_send_free(qp->kept);
	mig_groups_forget(qp);
	mig_keymap_drop(qp->rkeys);
	mig_keymap_drop(qp->next_rkeys);
	mig_keymap_drop(qp->srqns);
	mig_keymap_drop(qp->next_srqns);
	mig_recv_free(qp);
	free(qp->build);
	free(qp);
	return 0;
}
