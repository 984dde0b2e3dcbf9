/* Memory windows: rights to parts of a region, given and taken by requests in a send queue. */
#include "internal.h"

int rnic_alloc_mw(struct rnic_context *context, uint32_t pd_handle, enum ibv_mw_type type, uint32_t *handle, uint32_t *rkey)
{
	struct rnic_device *device = context->device;
	struct rnic_pd *pd = rnic_find(context, RNIC_PD, pd_handle);
	struct rnic_mw *mw;

	if (!device->settings[RNIC_SET_MAX_MW])
		return EOPNOTSUPP;
	if (!pd || (type != IBV_MW_TYPE_1 && type != IBV_MW_TYPE_2))
		return EINVAL;
	mw = rnic_make(context, RNIC_MW, sizeof(*mw));
	if (!mw)
		return ENOMEM;
	uint32_t number = rnic_number_take(&device->keys, &device->memory, device->settings[RNIC_SET_REUSE_NUMBERS]);
	if (rnic_table_add(&device->memory, &mw->object.link, number)) {
		rnic_unmake(RNIC_MW, mw);
		return ENOMEM;
	}
	mw->is_window = true;
	mw->type = type;
	mw->pd = pd;
	mw->rkey = number << 8 | rnic_key_variant(device);
	pd->object.users++;
	*handle = mw->object.handle;
	*rkey = mw->rkey;
	return 0;
}

static void unbind(struct rnic_mw *mw)
{
	if (mw->mr)
		mw->mr->object.users--;
	mw->mr = NULL;
	mw->qpn = 0;
	mw->length = 0;
	mw->access = 0;
}

void rnic_end_mw(struct rnic_mw *mw)
{
	struct rnic_device *device = mw->object.context->device;

	unbind(mw);
	mw->pd->object.users--;
	rnic_table_remove(&device->memory, &mw->object.link);
	rnic_number_give(&device->keys, mw->object.link.number);
	rnic_unmake(RNIC_MW, mw);
}

int rnic_dealloc_mw(struct rnic_context *context, uint32_t handle)
{
	struct rnic_mw *mw = rnic_find(context, RNIC_MW, handle);

	if (!mw)
		return EINVAL;
	rnic_end_mw(mw);
	return 0;
}

/* IBTA C10-72 to C10-75 and o10-36.2.2 to o10-37.2.40: who may bind what to where. */
static bool may_bind(const struct rnic_qp *qp, const struct rnic_send *wr, const struct rnic_mw *mw, const struct rnic_mr *mr)
{
	if (mw->pd != qp->pd)
		return false;
	if (mw->type == IBV_MW_TYPE_1 && wr->bind.access & IBV_ACCESS_ZERO_BASED)
		return false;
	/* A window of type 2 is bound once and ends by invalidation. */
	if (mw->type == IBV_MW_TYPE_2 && (mw->mr || !mr || !wr->bind.length))
		return false;
	if (!mr)
		return true;
	if (mr->pd != qp->pd || mr->access & IBV_ACCESS_ZERO_BASED || !(mr->access & IBV_ACCESS_MW_BIND))
		return false;
	if (wr->bind.access & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC) && !(mr->access & IBV_ACCESS_LOCAL_WRITE))
		return false;
	return wr->bind.address >= mr->iova && wr->bind.length <= mr->length &&
	       wr->bind.address - mr->iova <= mr->length - wr->bind.length;
}

int rnic_bind(struct rnic_qp *qp, const struct rnic_send *wr)
{
	struct rnic_context *context = qp->pd->object.context;
	struct rnic_mw *mw = rnic_find(context, RNIC_MW, wr->bind.mw);
	struct rnic_mr *mr = wr->bind.length ? rnic_find(context, RNIC_MR, wr->bind.mr) : NULL;

	if (!mw || mw->rkey != wr->bind.present || (wr->bind.length && !mr) ||
	    wr->bind.rkey >> 8 != mw->object.link.number || !may_bind(qp, wr, mw, mr))
		return EINVAL;
	unbind(mw);
	mw->rkey = wr->bind.rkey;
	if (!mr)
		return 0;
	mr->object.users++;
	mw->mr = mr;
	mw->qpn = rnic_qpn(qp);
	mw->address = wr->bind.address;
	mw->length = wr->bind.length;
	mw->access = wr->bind.access;
	return 0;
}

int rnic_invalidate(struct rnic_qp *qp, struct rnic_pd *pd, uint32_t rkey)
{
	struct rnic_link *link = rnic_table_find(&qp->device->memory, rkey >> 8);
	struct rnic_mw *mw = link ? rnic_of(link, struct rnic_mw, object.link) : NULL;

	/* Regions of user space cannot be invalidated, nor windows of type 1. */
	if (!mw || !mw->is_window || mw->type != IBV_MW_TYPE_2 || mw->rkey != rkey || mw->pd != pd || !mw->mr ||
	    mw->qpn != rnic_qpn(qp))
		return EINVAL;
	unbind(mw);
	return 0;
}
