
#include <errno.h>
#include <stdlib.h>

#include "base/verb_gate.h"
#include "objects/ah.h"
#include "objects/kinds.h"
#include "objects/offer.h"
#include "objects/parent_domain.h"
#include "real/export.h"
#include "shadow/pd.h"

struct ibv_pd *ibv_alloc_pd(struct ibv_context *ibv)
{
	struct mig_context *context = mig_context(ibv);

	if (!context)
		return mig_real()->ibv_alloc_pd(ibv);
	MIG_VERB;
	struct mig_pd *pd = calloc(1, sizeof(*pd));
	if (!pd) {
		errno = ENOMEM;
		return NULL;
	}
	pd->real = mig_real()->ibv_alloc_pd(context->real);
	if (!pd->real) {
		int error = errno;

		free(pd);
		errno = error;
		return NULL;
	}
	pd->ibv.context = ibv;
	pd->ibv.handle = pd->real->handle;
	MIG_LOCKED(&context->lock);
	pd->id = ++context->pds_made;
	mig_list_add(&context->pds, &pd->link);
	return &pd->ibv;
}

/* A device that has no parent domains does not know that this one has some. */
static int end_real_pd(struct mig_pd *pd)
{
	mig_lock(&mig_context(pd->ibv.context)->lock);
	uint32_t users = pd->users;
	mig_unlock(&mig_context(pd->ibv.context)->lock);

	if (users)
		return EBUSY;
	return pd->parent ? mig_parent_domain_end_real(pd) : mig_real()->ibv_dealloc_pd(pd->real);
}

int ibv_dealloc_pd(struct ibv_pd *ibv)
{
	struct mig_pd *pd = mig_pd(ibv);

	MIG_VERB;
	if (pd)
		mig_ah_end_rest(mig_context(ibv->context));
	struct mig_mark *marks = mig_marks_take(ibv);
	int error = pd ? end_real_pd(pd) : mig_real()->ibv_dealloc_pd(ibv);
	mig_marks_settle(marks, error);
	if (!pd || error)
		return error;
	mig_lock(&mig_context(ibv->context)->lock);
	mig_list_remove(&pd->link);
	mig_unlock(&mig_context(ibv->context)->lock);
	free(pd);
	return 0;
}

struct ibv_pd *ibv_import_pd(struct ibv_context *ibv, uint32_t handle)
{
	struct mig_context *context = mig_context(ibv);

	if (!mig_real()->ibv_import_pd) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	if (!context)
		return mig_real()->ibv_import_pd(ibv, handle);
	MIG_VERB;
	struct ibv_pd *pd = mig_real()->ibv_import_pd(context->real, handle);
	return mig_marked(ibv, pd, "an imported protection domain");
}

void ibv_unimport_pd(struct ibv_pd *pd)
{
	struct mig_mark *marks = mig_marks_take(pd);

	if (mig_real()->ibv_unimport_pd)
		mig_real()->ibv_unimport_pd(pd);
	mig_marks_settle(marks, 0);
}

static struct mig_pd *pd_of(struct mig_link *object)
{
	return MIG_CONTAINER(object, struct mig_pd, link);
}

static void pd_count(const struct mig_link *object, struct mig_inventory *inventory)
{
	(void)object;
	inventory->pds++;
}

static int pd_make(struct mig_context *context, struct mig_link *object)
{
	struct mig_pd *pd = pd_of(object);

	pd->next = mig_real()->ibv_alloc_pd(context->next);
	return pd->next ? 0 : errno;
}

static void pd_end(struct mig_link *object)
{
	struct mig_pd *pd = pd_of(object);

	mig_real()->ibv_dealloc_pd(pd->next);
	pd->next = NULL;
}

static void pd_give_up(struct mig_context *context, struct mig_link *object)
{
	(void)context;
	if (pd_of(object)->next)
		pd_end(object);
}

static void pd_exchange(struct mig_context *context, struct mig_link *object)
{
	struct mig_pd *pd = pd_of(object);

	(void)context;
	MIG_EXCHANGE(pd->real, pd->next);
	pd->ibv.handle = pd->real->handle;
}

static void pd_forget(struct mig_link *object)
{
	pd_of(object)->next = NULL;
}

const struct mig_kind mig_pd_kind = {
	.name = "protection domain",
	.list = MIG_LIST_OF(pds),
	.count = pd_count,
	.make = pd_make,
	.give_up = pd_give_up,
	.exchange = pd_exchange,
	.end = pd_end,
	.forget = pd_forget,
};
