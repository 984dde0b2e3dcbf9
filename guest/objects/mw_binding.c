#include "objects/mw_binding.h"

#include <errno.h>

#include "path/kept.h"

void mig_mw_lose_qp(struct mig_context *context, const struct mig_qp *qp)
{
	MIG_LOCKED(&context->lock);
	MIG_EACH(&context->mws, mw, struct mig_mw, link)
		if (mw->qp == qp) {
			if (mw->ibv.type == IBV_MW_TYPE_2)
				mw->mr = NULL;
			mw->is_unsure |= __atomic_load_n(&qp->broken, __ATOMIC_RELAXED);
			mw->qp = NULL;
		}
}

void mig_mw_lose_mr(struct mig_context *context, const struct mig_mr *mr)
{
	MIG_LOCKED(&context->lock);
	MIG_EACH(&context->mws, mw, struct mig_mw, link)
		if (mw->mr == mr)
			mw->mr = NULL;
}

/* Requests that are kept and are about this, of whichever queue pair. */
static int each_kept(struct mig_context *context, int (*about)(struct mig_qp *qp, const void *object), const void *object)
{
	int found = 0;

	if (!__atomic_load_n(&context->keeping, __ATOMIC_RELAXED))
		return 0;
	MIG_LOCKED(&context->lock);
	MIG_EACH(&context->qps, qp, struct mig_qp, link)
		found |= about(qp, object);
	return found;
}

static int forget_window(struct mig_qp *qp, const void *mw)
{
	mig_send_forget_window(qp, mw);
	return 0;
}

/* In its place would stand a request that names a shared receive queue of the peer, as any of XRC that is sent does. */
static int is_irreplaceable(struct mig_qp *qp, const void *mw)
{
	return qp->ibv.qp_type == IBV_QPT_XRC_SEND && mig_send_is_about(qp, mw);
}

static int binds_to(struct mig_qp *qp, const void *mr)
{
	return mig_send_binds_to(qp, mr);
}

int mig_mw_forget_kept(struct mig_context *context, const struct mig_mw *mw)
{
	if (each_kept(context, is_irreplaceable, mw))
		return EBUSY;
	each_kept(context, forget_window, mw);
	return 0;
}

int mig_mw_is_kept_for(struct mig_context *context, const struct ibv_mr *mr)
{
	return each_kept(context, binds_to, mr);
}

const struct mig_mw *mig_mw_bound_to(const struct mig_context *context, const struct mig_qp *qp)
{
	MIG_EACH(&context->mws, mw, struct mig_mw, link)
		if (mw->ibv.type == IBV_MW_TYPE_2 && mw->mr && mw->qp == qp)
			return mw;
	return NULL;
}
