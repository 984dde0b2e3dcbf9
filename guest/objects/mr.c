#include "objects/mr.h"

#include <errno.h>
#include <stdlib.h>

#include "base/keymap.h"
#include "base/verb_gate.h"
#include "objects/mr_keys.h"
#include "objects/mw_binding.h"
#include "objects/offer.h"
#include "real/export.h"
#include "shadow/dm.h"
#include "shadow/marks.h"
#include "shadow/pd.h"
#include "shadow/process.h"
#include "shadow/reach.h"

static struct ibv_mr *register_memory(enum mig_mr_way way, struct ibv_pd *ibv, void *addr, size_t length, uint64_t iova,
				      unsigned int access)
{
	struct mig_pd *pd = mig_pd(ibv);

	if (!pd)
		return mig_mr_ask(way, ibv, addr, length, iova, access);

	MIG_VERB_AS("ibv_reg_mr");
	struct mig_context *context = mig_context(ibv->context);
	struct mig_mr *mr = calloc(1, sizeof(*mr));
	if (!mr) {
		errno = ENOMEM;
		return NULL;
	}
	mr->real = mig_mr_ask_until_unique(context, way, pd->real, addr, length, iova, access);
	if (!mr->real) {
		free(mr);
		return NULL;
	}
	mr->ibv = *mr->real;
	mr->ibv.context = ibv->context;
	mr->ibv.pd = ibv;
	mr->iova = iova;
	mr->access = access;
	mr->is_null = way == MIG_MR_NULL;
	if (way != MIG_MR_NULL && way != MIG_MR_DEVICE)
		mig_reach_add(addr, length, access);
	mig_lock(&context->lock);
	int error = mig_mr_keys_add(context, mr);
	if (!error)
		mig_list_add(&context->mrs, &mr->link);
	mig_unlock(&context->lock);
	if (!error)
		return &mr->ibv;
	mig_real()->ibv_dereg_mr(mr->real);
	free(mr);
	errno = error;
	return NULL;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
	return register_memory(MIG_MR_PLAIN, pd, addr, length, (uintptr_t)addr, (unsigned int)access);
}

struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, int access)
{
	return register_memory(MIG_MR_IOVA, pd, addr, length, iova, (unsigned int)access);
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, unsigned int access)
{
	return register_memory(MIG_MR_IOVA2, pd, addr, length, iova, access);
}

static struct ibv_mr *alloc_null_mr(struct ibv_pd *pd)
{
	return register_memory(MIG_MR_NULL, pd, NULL, 0, 0, 0);
}

static struct ibv_mr *reg_dm_mr(struct ibv_pd *pd, struct ibv_dm *ibv, uint64_t offset, size_t length, unsigned int access)
{
	MIG_VERB;
	struct mig_dm *dm = mig_dm(ibv);

	/* What is imported is a reason against a move already, and its region goes with it. */
	if (!dm)
		return mig_real_operations(pd->context)->reg_dm_mr(mig_real_pd(pd), ibv, offset, length, access);
	struct ibv_mr *mr = register_memory(MIG_MR_DEVICE, pd, dm->real, length, offset, access);
	if (mr)
		mig_mr(mr)->dm = dm;
	return mr;
}

static int end_real_mr(struct mig_mr *mr)
{
	MIG_VERB_AS("ibv_dereg_mr");
	struct mig_context *context = mig_context(mr->ibv.context);
	int error = mig_mw_is_kept_for(context, &mr->ibv) ? EBUSY : mig_real()->ibv_dereg_mr(mr->real);
	if (error)
		return error;
	mig_mw_lose_mr(context, mr);
	mig_lock(&context->lock);
	mig_list_remove(&mr->link);
	mig_mr_keys_remove(context, mr);
	mig_unlock(&context->lock);
	return 0;
}

int ibv_dereg_mr(struct ibv_mr *ibv)
{
	struct mig_mr *mr = mig_mr(ibv);

	struct mig_mark *marks = mig_marks_take(ibv);
	int error = mr ? end_real_mr(mr) : mig_real()->ibv_dereg_mr(ibv);

	mig_marks_settle(marks, error);
	if (mr && !error)
		free(mr);
	return error;
}

static int advise_mr(struct ibv_pd *pd, enum ibv_advise_mr_advice advice, uint32_t flags, struct ibv_sge *sges,
		     uint32_t count)
{
	MIG_VERB;
	struct mig_context *context = mig_context(pd->context);
	struct ibv_sge *copy = calloc(count ? count : 1, sizeof(*copy));

	if (!copy)
		return ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		copy[i] = sges[i];
		copy[i].lkey = mig_keymap_get(context->lkeys, sges[i].lkey);
	}
	int error = mig_real_operations(pd->context)->advise_mr(mig_real_pd(pd), advice, flags, copy, count);
	free(copy);
	return error;
}

void mig_mr_offer(struct mig_context *context)
{
	MIG_OFFER(context, advise_mr, advise_mr);
	MIG_OFFER(context, alloc_null_mr, alloc_null_mr);
	MIG_OFFER(context, reg_dm_mr, reg_dm_mr);
}
