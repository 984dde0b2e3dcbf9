#include "objects/mw.h"

#include <errno.h>

#include "base/verb_gate.h"
#include "objects/qp.h"
#include "shadow/marks.h"
#include "shadow/mr.h"
#include "shadow/pd.h"

/*
 * Memory windows: ibv_bind_mw compares the window's protection domain with the region's and goes through the
 * window's context, so these two pointers of the real object have to be ours. The real library gets its own back.
 */
static struct ibv_mw *alloc_mw(struct ibv_pd *pd, enum ibv_mw_type type)
{
	MIG_VERB;
	struct mig_context *context = mig_context(pd->context);

	if (!context->real->ops.alloc_mw) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	struct ibv_mw *mw = context->real->ops.alloc_mw(mig_real_pd(pd), type);
	if (!mw)
		return NULL;
	mw->context = pd->context;
	mw->pd = pd;
	mig_lock(&context->lock);
	context->windows++;
	if (!context->has_windows) {
		context->has_windows = 1;
		MIG_EACH(&context->qps, qp, struct mig_qp, link)
			mig_qp_set_operations(qp);
	}
	mig_unlock(&context->lock);
	mig_mark(context, mw, "a memory window");
	return mw;
}

static int dealloc_mw(struct ibv_mw *mw)
{
	MIG_VERB;
	struct mig_context *context = mig_context(mw->context);
	struct ibv_pd *pd = mw->pd;

	mw->context = context->real;
	mw->pd = mig_real_pd(pd);
	struct mig_mark *marks = mig_marks_take(mw);
	int error = context->real->ops.dealloc_mw(mw);
	mig_marks_settle(marks, error);
	if (error) {
		mw->context = &context->verbs.context;
		mw->pd = pd;
		return error;
	}
	MIG_LOCKED(&context->lock);
	context->windows--;
	return 0;
}

static int bind_mw(struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind)
{
	struct mig_context *context = mig_context(mw->context);
	struct ibv_mw_bind theirs = *bind;
	struct ibv_pd *pd = mw->pd;

	MIG_LOCKED(&context->lock);
	theirs.bind_info.mr = mig_real_mr(bind->bind_info.mr);
	mw->context = context->real;
	mw->pd = mig_real_pd(pd);
	int error = context->real->ops.bind_mw(mig_real_qp(qp), mw, &theirs);
	mw->context = &context->verbs.context;
	mw->pd = pd;
	return error;
}

void mig_mw_offer(struct mig_context *context)
{
	struct ibv_context_ops *operations = &context->verbs.context.ops;

	operations->alloc_mw = context->real->ops.alloc_mw ? alloc_mw : NULL;
	operations->bind_mw = bind_mw;
	operations->dealloc_mw = dealloc_mw;
}
