/* Memory windows. What they are bound to is followed where it is posted: path/window.c. */
#include "objects/mw.h"

#include <errno.h>
#include <stdlib.h>

#include "base/section.h"
#include "base/verb_gate.h"
#include "objects/mr_keys.h"
#include "objects/mw_binding.h"
#include "objects/offer.h"
#include "objects/qp.h"
#include "path/hold.h"
#include "path/send.h"
#include "path/window.h"
#include "real/doorbell.h"
#include "shadow/mr.h"
#include "shadow/pd.h"

static void put_in(struct mig_mw **place, struct mig_mw *mw, struct mig_mw **behind)
{
	__atomic_store_n(behind, *place, __ATOMIC_RELAXED);
	__atomic_store_n(place, mw, __ATOMIC_RELEASE);
}

void mig_mw_list_physical(struct mig_context *context, struct mig_mw *mw)
{
	put_in(&context->mw_table->by_pindex[mw->pindex % MIG_MW_PLACES], mw, &mw->pnear);
}

/* Must hold the context's lock. */
static void take_out(struct mig_context *context, struct mig_mw *mw)
{
	struct mig_mw **at = &context->mw_table->by_index[mw->index % MIG_MW_PLACES];

	while (*at != mw)
		at = &(*at)->near;
	__atomic_store_n(at, mw->near, __ATOMIC_RELEASE);
	at = &context->mw_table->by_pindex[mw->pindex % MIG_MW_PLACES];
	while (*at != mw)
		at = &(*at)->pnear;
	__atomic_store_n(at, mw->pnear, __ATOMIC_RELEASE);
}

/* From the first window on requests are looked at, and completions. */
static int begin_to_look(struct mig_context *context)
{
	MIG_LOCKED(&context->lock);
	if (context->has_windows)
		return 0;
	context->mw_table = calloc(1, sizeof(*context->mw_table));
	if (!context->mw_table)
		return ENOMEM;
	context->has_windows = 1;
	mig_look_at_completions(context, MIG_TRANSLATE_WINDOWS);
	MIG_EACH(&context->qps, qp, struct mig_qp, link)
		mig_qp_set_translation(qp);
	return 0;
}

/* See mig_mr_ask_until_unique. */
static struct ibv_mw *ask_until_unique(struct mig_context *context, struct ibv_pd *pd, enum ibv_mw_type type)
{
	struct mig_refused refused = { 0 };
	struct ibv_mw *real = NULL, *other;
	int again = 1, error = 0;

	while (again && !error) {
		real = context->real->ops.alloc_mw(pd, type);
		if (!real) {
			error = errno;
			break;
		}
		mig_lock(&context->lock);
		again = mig_index_is_taken(context, real->rkey >> 8);
		mig_unlock(&context->lock);
		if (again && (error = mig_refuse(&refused, real)))
			context->real->ops.dealloc_mw(real);
	}
	while ((other = mig_refused_next(&refused)))
		context->real->ops.dealloc_mw(other);
	if (error)
		errno = error;
	return error ? NULL : real;
}

static struct ibv_mw *alloc_mw(struct ibv_pd *pd, enum ibv_mw_type type)
{
	MIG_VERB;
	struct mig_context *context = mig_context(pd->context);
	int error = context->real->ops.alloc_mw ? begin_to_look(context) : EOPNOTSUPP;
	struct mig_mw *mw = error ? NULL : calloc(1, sizeof(*mw));

	if (!mw) {
		errno = error ? error : ENOMEM;
		return NULL;
	}
	mw->real = ask_until_unique(context, mig_real_pd(pd), type);
	if (!mw->real) {
		error = errno;
		free(mw);
		errno = error;
		return NULL;
	}
	mw->ibv = *mw->real;
	mw->ibv.context = pd->context;
	mw->ibv.pd = pd;
	mw->rkey = mw->real->rkey;
	mw->index = mw->pindex = mw->rkey >> 8;
	MIG_LOCKED(&context->lock);
	put_in(&context->mw_table->by_index[mw->index % MIG_MW_PLACES], mw, &mw->near);
	mig_mw_list_physical(context, mw);
	mig_list_add(&context->mws, &mw->link);
	return &mw->ibv;
}

/* A peer goes on translating the numbers of one that has differed: they stay its own, and nobody else's. */
static int dealloc_mw(struct ibv_mw *ibv)
{
	struct mig_mw *mw = mig_mw(ibv);

	MIG_VERB;
	struct mig_context *context = mig_context(ibv->context);
	int error = mig_mw_forget_kept(context, mw);
	if (!error)
		error = mw->real->context->ops.dealloc_mw(mw->real);
	if (error)
		return error;
	mig_lock(&context->lock);
	take_out(context, mw);
	mw->has_ended = 1;
	mw->mr = NULL;
	mw->real = NULL;
	if (!mw->has_differed)
		mig_list_remove(&mw->link);
	mig_unlock(&context->lock);
	mig_synchronize();
	if (!mw->has_differed)
		free(mw);
	return 0;
}

/* A request like others from here on, which may be kept; the number that it is told is told now. */
static int bind_mw(struct ibv_qp *qp, struct ibv_mw *ibv, struct ibv_mw_bind *bind)
{
	struct ibv_send_wr wr = { .wr_id = bind->wr_id, .opcode = IBV_WR_BIND_MW, .send_flags = bind->send_flags }, *bad;

	wr.bind_mw.mw = ibv;
	wr.bind_mw.rkey = ibv_inc_rkey(ibv->rkey);
	wr.bind_mw.bind_info = bind->bind_info;
	if (!mig_qp(qp)) {
		struct mig_mw *mw = mig_mw(ibv);
		struct ibv_mw_bind theirs = *bind;

		theirs.bind_info.mr = mig_real_mr(bind->bind_info.mr);
		int error = mw->real->context->ops.bind_mw(qp, mw->real, &theirs);
		if (!error)
			ibv->rkey = wr.bind_mw.rkey;
		return error;
	}
	int error = mig_post_send(qp, &wr, &bad);
	if (!error)
		ibv->rkey = wr.bind_mw.rkey;
	return error;
}

void mig_mw_offer(struct mig_context *context)
{
	struct ibv_context_ops *operations = &context->verbs.context.ops;

	MIG_PUT(context->bind_mw, mig_bind_and_ring);
	MIG_PUT(operations->alloc_mw, context->real->ops.alloc_mw ? alloc_mw : NULL);
	MIG_PUT(operations->bind_mw, bind_mw);
	MIG_PUT(operations->dealloc_mw, dealloc_mw);
}
