/* Another use of a memory region: of other memory, in another protection domain, with other rights. */
#include <errno.h>

#include "base/verb_gate.h"
#include "objects/mr.h"
#include "objects/mr_keys.h"
#include "real/export.h"
#include "shadow/dm.h"
#include "shadow/pd.h"
#include "shadow/reach.h"

static void take_note(struct mig_mr *mr, int flags, struct ibv_pd *pd, void *addr, int access)
{
	if (flags & IBV_REREG_MR_CHANGE_PD)
		mr->ibv.pd = pd;
	if (flags & IBV_REREG_MR_CHANGE_TRANSLATION)
		mr->iova = (uintptr_t)addr;
	if (flags & IBV_REREG_MR_CHANGE_ACCESS)
		mr->access = (unsigned int)access;
	mr->ibv.addr = mr->real->addr;
	mr->ibv.length = mr->real->length;
	mr->ibv.handle = mr->real->handle;
}

/*
 * Peers have a map of the numbers that have ever differed, and are not told of new ones. So a region whose numbers differ is
 * registered again, under numbers that mean the same to everybody. Its old ones are nobody's.
 */
static int get_numbers_of_its_own(struct mig_context *context, struct mig_mr *mr)
{
	enum mig_mr_way way = mr->iova == (uintptr_t)mr->ibv.addr ? MIG_MR_PLAIN : MIG_MR_IOVA;
	void *addr = mr->ibv.addr;

	if (mr->access & IBV_ACCESS_OPTIONAL_RANGE)
		way = MIG_MR_IOVA2;
	if (mr->dm) {
		way = MIG_MR_DEVICE;
		addr = mr->dm->real;
	}
	struct ibv_mr *fresh = mig_mr_ask_until_unique(context, way, mig_real_pd(mr->ibv.pd), addr, mr->ibv.length, mr->iova,
						       mr->access);
	if (!fresh)
		return errno;
	int error = mig_real()->ibv_dereg_mr(mr->real);
	if (error) {
		mig_real()->ibv_dereg_mr(fresh);
		return error;
	}
	mr->real = fresh;
	mr->ibv.handle = fresh->handle;
	return 0;
}

static void follow_numbers(struct mig_context *context, struct mig_mr *mr)
{
	MIG_LOCKED(&context->lock);
	mig_mr_keys_remove(context, mr);
	mr->ibv.lkey = mr->real->lkey;
	mr->ibv.rkey = mr->real->rkey;
	/* If there is no memory for the list, the next who needs it makes it anew. */
	if (mig_mr_keys_add(context, mr)) {
		mig_numbers_free(&context->vlkeys);
		mig_numbers_free(&context->vrkeys);
		context->keys_listed = 0;
	}
}

int ibv_rereg_mr(struct ibv_mr *ibv, int flags, struct ibv_pd *pd, void *addr, size_t length, int access)
{
	struct mig_mr *mr = mig_mr(ibv);

	if (!mr)
		return mig_real()->ibv_rereg_mr(ibv, flags, mig_real_pd(pd), addr, length, access);
	MIG_VERB;
	struct mig_context *context = mig_context(ibv->context);
	int result = mig_real()->ibv_rereg_mr(mr->real, flags, mig_real_pd(pd), addr, length, access);
	if (result && result != IBV_REREG_MR_ERR_DO_FORK_OLD)
		return result;
	take_note(mr, flags, pd, addr, access);
	if (!mr->dm && !mr->is_null)
		mig_reach_add(mr->ibv.addr, mr->ibv.length, mr->access);
	if (mr->real->lkey == ibv->lkey && mr->real->rkey == ibv->rkey)
		return result;
	int error = context->translate ? get_numbers_of_its_own(context, mr) : 0;
	if (error) {
		errno = error;
		return IBV_REREG_MR_ERR_CMD;
	}
	follow_numbers(context, mr);
	return result;
}
