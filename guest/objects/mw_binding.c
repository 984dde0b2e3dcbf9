#include "objects/mw_binding.h"

void mig_mw_lose_qp(struct mig_context *context, const struct mig_qp *qp)
{
	MIG_LOCKED(&context->lock);
	MIG_EACH(&context->mws, mw, struct mig_mw, link)
		if (mw->qp == qp) {
			if (mw->ibv.type == IBV_MW_TYPE_2)
				mw->mr = NULL;
			mw->qp = NULL;
		}
}

const struct mig_mw *mig_mw_bound_to(const struct mig_context *context, const struct mig_qp *qp)
{
	MIG_EACH(&context->mws, mw, struct mig_mw, link)
		if (mw->ibv.type == IBV_MW_TYPE_2 && mw->mr && mw->qp == qp)
			return mw;
	return NULL;
}
