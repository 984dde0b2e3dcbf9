#include "objects/pd.h"

#include <errno.h>
#include <stdlib.h>

#include "base/verb_gate.h"
#include "objects/kinds.h"
#include "objects/offer.h"
#include "real/export.h"

struct ibv_pd *mig_pd_wrap(struct mig_context *context, struct ibv_pd *real)
{
	struct mig_pd *pd = calloc(1, sizeof(*pd));

	if (!pd) {
		mig_real()->ibv_dealloc_pd(real);
		errno = ENOMEM;
		return NULL;
	}
	pd->real = real;
	pd->ibv.context = &context->verbs.context;
	pd->ibv.handle = real->handle;
	MIG_LOCKED(&context->lock);
	pd->id = ++context->pds_made;
	mig_list_add(&context->pds, &pd->link);
	return &pd->ibv;
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *ibv)
{
	struct mig_context *context = mig_context(ibv);

	if (!context)
		return mig_real()->ibv_alloc_pd(ibv);
	MIG_VERB;
	struct ibv_pd *real = mig_real()->ibv_alloc_pd(context->real);
	return real ? mig_pd_wrap(context, real) : NULL;
}

int ibv_dealloc_pd(struct ibv_pd *ibv)
{
	struct mig_pd *pd = mig_pd(ibv);

	MIG_VERB;
	struct mig_mark *marks = mig_marks_take(ibv);
	int error = mig_real()->ibv_dealloc_pd(mig_real_pd(ibv));
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

/* Wrapped, not passed through: CQs and QPs of ours may be made in it. */
static struct ibv_pd *alloc_parent_domain(struct ibv_context *ibv, struct ibv_parent_domain_init_attr *attr)
{
	MIG_VERB;
	struct ibv_parent_domain_init_attr theirs = *attr;

	theirs.pd = mig_real_pd(attr->pd);
	struct ibv_pd *real = mig_real_operations(ibv)->alloc_parent_domain(mig_context(ibv)->real, &theirs);
	return real ? mig_marked(ibv, mig_pd_wrap(mig_context(ibv), real), "a parent domain") : NULL;
}

void mig_pd_offer(struct mig_context *context)
{
	MIG_OFFER(context, alloc_parent_domain, alloc_parent_domain);
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
