#include "path/window.h"

#include <errno.h>

#include "shadow/mr.h"

/* Soft-RoCE says with this flag that a window was invalidated: the kernel's numbers of the two flags are exchanged. */
#define INVALIDATED (IBV_WC_WITH_INV | IBV_WC_IP_CSUM_OK)

void mig_window_note(struct ibv_send_wr *copy)
{
	if (copy->opcode == IBV_WR_BIND_MW && copy->bind_mw.mw)
		copy->wr.rdma.rkey = copy->bind_mw.mw->rkey;
}

void mig_window_translate(const struct mig_context *context, struct ibv_send_wr *wr)
{
	if (wr->opcode == IBV_WR_LOCAL_INV) {
		const struct mig_mw *mw = mig_mw_by_index(context->mw_table, wr->invalidate_rkey >> 8);

		if (mw)
			wr->invalidate_rkey = mig_mw_to_physical(mw, wr->invalidate_rkey);
		return;
	}
	struct mig_mw *mw = mig_mw(wr->bind_mw.mw);

	wr->bind_mw.bind_info.mr = mig_real_mr(wr->bind_mw.bind_info.mr);
	if (!mw)
		return;
	wr->bind_mw.mw = mw->real;
	wr->bind_mw.rkey = mig_mw_to_physical(mw, wr->bind_mw.rkey);
	/* Which one the device takes for the present one is not changed by the request. */
	mw->real->rkey = mig_mw_to_physical(mw, wr->wr.rdma.rkey);
}

int mig_window_is_of_type_1(const struct ibv_send_wr *wr)
{
	return wr->opcode == IBV_WR_BIND_MW && mig_mw(wr->bind_mw.mw) && wr->bind_mw.mw->type == IBV_MW_TYPE_1;
}

int mig_window_bind_type_1(struct mig_qp *qp, const struct ibv_send_wr *wr)
{
	struct mig_mw *mw = mig_mw(wr->bind_mw.mw);
	struct ibv_mw_bind bind = { .wr_id = wr->wr_id, .send_flags = wr->send_flags, .bind_info = wr->bind_mw.bind_info };

	bind.bind_info.mr = mig_real_mr(bind.bind_info.mr);
	return mig_context(qp->ibv.context)->bind_mw(qp->real, mw->real, &bind);
}

static void bound(struct mig_qp *qp, const struct ibv_send_wr *wr)
{
	const struct ibv_mw_bind_info *info = &wr->bind_mw.bind_info;
	struct mig_mw *mw = mig_mw(wr->bind_mw.mw);

	if (!mw)
		return;
	mw->qp = qp;
	mw->is_unsure = 0;
	mw->addr = info->addr;
	mw->length = info->length;
	mw->access = info->mw_access_flags;
	mw->rkey = wr->bind_mw.rkey;
	__atomic_store_n(&mw->mr, info->length ? mig_mr(info->mr) : NULL, __ATOMIC_RELEASE);
}

static void invalidated(struct mig_mw *mw)
{
	__atomic_store_n(&mw->mr, NULL, __ATOMIC_RELEASE);
}

void mig_window_posted(struct mig_qp *qp, const struct ibv_send_wr *wr)
{
	if (wr->opcode == IBV_WR_BIND_MW) {
		bound(qp, wr);
	} else if (wr->opcode == IBV_WR_LOCAL_INV) {
		struct mig_mw *mw = mig_mw_by_index(mig_context(qp->ibv.context)->mw_table, wr->invalidate_rkey >> 8);

		if (mw)
			invalidated(mw);
	}
}

void mig_window_received(const struct mig_context *context, const struct mig_qp *qp, struct ibv_wc *wc)
{
	struct mig_mw *mw = wc->wc_flags & INVALIDATED ? mig_mw_by_pindex(context->mw_table, wc->invalidated_rkey >> 8) : NULL;

	if (!mw || (!(wc->wc_flags & IBV_WC_WITH_INV) && (mw->qp != qp || mig_mw_to_physical(mw, mw->rkey) != wc->invalidated_rkey)))
		return;
	wc->invalidated_rkey = mig_mw_to_virtual(mw, wc->invalidated_rkey);
	/* It may have been bound anew since. */
	if (mw->rkey == wc->invalidated_rkey)
		invalidated(mw);
}
