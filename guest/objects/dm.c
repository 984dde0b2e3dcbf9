/*
 * Memory of the device's own. Its contents are read when everything rests, into memory that the image carries, and written into
 * the next one's before anybody can reach it.
 */
#include "objects/dm.h"

#include <errno.h>
#include <stdlib.h>

#include "base/pages.h"
#include "base/verb_gate.h"
#include "objects/kinds.h"
#include "objects/offer.h"
#include "shadow/dm.h"

static int copy_to(struct ibv_dm *ibv, uint64_t offset, const void *from, size_t length)
{
	MIG_VERB_AS("ibv_memcpy_to_dm");
	struct ibv_dm *real = mig_real_dm(ibv);
	return real->memcpy_to_dm(real, offset, from, length);
}

static int copy_from(void *to, struct ibv_dm *ibv, uint64_t offset, size_t length)
{
	MIG_VERB_AS("ibv_memcpy_from_dm");
	struct ibv_dm *real = mig_real_dm(ibv);
	return real->memcpy_from_dm(to, real, offset, length);
}

static struct ibv_dm *dm_make_real(struct ibv_context *real, const struct ibv_alloc_dm_attr *init)
{
	struct verbs_context *verbs = verbs_get_ctx_op(real, alloc_dm);
	struct ibv_alloc_dm_attr attr = *init;

	if (verbs)
		return verbs->alloc_dm(real, &attr);
	errno = EOPNOTSUPP;
	return NULL;
}

static struct ibv_dm *alloc_dm(struct ibv_context *ibv, struct ibv_alloc_dm_attr *attr)
{
	MIG_VERB;
	struct mig_context *context = mig_context(ibv);
	struct mig_dm *dm = calloc(1, sizeof(*dm));

	if (!dm) {
		errno = ENOMEM;
		return NULL;
	}
	dm->init = *attr;
	dm->real = dm_make_real(context->real, attr);
	if (!dm->real) {
		int error = errno;

		free(dm);
		errno = error;
		return NULL;
	}
	dm->ibv = *dm->real;
	dm->ibv.context = ibv;
	dm->ibv.memcpy_to_dm = copy_to;
	dm->ibv.memcpy_from_dm = copy_from;
	MIG_LOCKED(&context->lock);
	mig_list_add(&context->dms, &dm->link);
	return &dm->ibv;
}

static int end_real(struct ibv_dm *real)
{
	return verbs_get_ctx(real->context)->free_dm(real);
}

static int free_dm(struct ibv_dm *ibv)
{
	MIG_VERB;
	struct mig_dm *dm = mig_dm(ibv);
	struct mig_context *context = mig_context(ibv->context);
	int error = end_real(dm->real);

	if (error)
		return error;
	mig_lock(&context->lock);
	mig_list_remove(&dm->link);
	mig_unlock(&context->lock);
	free(dm);
	return 0;
}

void mig_dm_offer(struct mig_context *context)
{
	MIG_OFFER(context, alloc_dm, alloc_dm);
	MIG_OFFER(context, free_dm, free_dm);
}

static struct mig_dm *dm_of(struct mig_link *object)
{
	return MIG_CONTAINER(object, struct mig_dm, link);
}

static void forget_contents(struct mig_dm *dm)
{
	mig_pages_free(dm->contents);
	dm->contents = NULL;
}

/* The peers rest, and the application's verbs wait: nobody writes to it any more. */
static int dm_park(struct mig_link *object)
{
	struct mig_dm *dm = dm_of(object);

	dm->contents = mig_pages_alloc(dm->init.length);
	if (!dm->contents)
		return ENOMEM;
	return dm->real->memcpy_from_dm(dm->contents, dm->real, 0, dm->init.length);
}

static int dm_unpark(struct mig_link *object, struct mig_qp_name *which)
{
	(void)which;
	forget_contents(dm_of(object));
	return 0;
}

static int dm_make(struct mig_context *context, struct mig_link *object)
{
	struct mig_dm *dm = dm_of(object);

	dm->next = dm_make_real(context->next, &dm->init);
	if (!dm->next)
		return errno;
	return dm->next->memcpy_to_dm(dm->next, 0, dm->contents, dm->init.length);
}

static void dm_end(struct mig_link *object)
{
	struct mig_dm *dm = dm_of(object);

	if (dm->next)
		end_real(dm->next);
	dm->next = NULL;
}

static void dm_give_up(struct mig_context *context, struct mig_link *object)
{
	(void)context;
	dm_end(object);
}

static void dm_exchange(struct mig_context *context, struct mig_link *object)
{
	struct mig_dm *dm = dm_of(object);

	(void)context;
	MIG_EXCHANGE(dm->real, dm->next);
	dm->ibv.handle = dm->real->handle;
}

static void dm_forget(struct mig_link *object)
{
	dm_of(object)->next = NULL;
}

const struct mig_kind mig_dm_kind = {
	.name = "device memory",
	.list = MIG_LIST_OF(dms),
	.make = dm_make,
	.give_up = dm_give_up,
	.exchange = dm_exchange,
	.end = dm_end,
	.forget = dm_forget,
	.park = dm_park,
	.unpark = dm_unpark,
};
