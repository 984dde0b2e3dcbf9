/* Thread domains: the promise that what is made in one is used by one thread at a time. */
#include "objects/td.h"

#include <errno.h>
#include <stdlib.h>

#include "base/verb_gate.h"
#include "objects/kinds.h"
#include "objects/offer.h"
#include "shadow/td.h"

static struct ibv_td *td_make_real(struct ibv_context *real)
{
	struct verbs_context *verbs = verbs_get_ctx_op(real, alloc_td);
	struct ibv_td_init_attr attr = { 0 };

	if (verbs)
		return verbs->alloc_td(real, &attr);
	errno = EOPNOTSUPP;
	return NULL;
}

static struct ibv_td *alloc_td(struct ibv_context *ibv, struct ibv_td_init_attr *attr)
{
	MIG_VERB;
	struct mig_context *context = mig_context(ibv);
	struct mig_td *td = NULL;

	/* There are no attributes yet. */
	if (attr->comp_mask)
		errno = EOPNOTSUPP;
	else if (!(td = calloc(1, sizeof(*td))))
		errno = ENOMEM;
	if (!td)
		return NULL;
	td->ibv.context = ibv;
	td->real = td_make_real(context->real);
	if (!td->real) {
		int error = errno;

		free(td);
		errno = error;
		return NULL;
	}
	MIG_LOCKED(&context->lock);
	mig_list_add(&context->tds, &td->link);
	return &td->ibv;
}

static int td_end_real(struct ibv_td *real)
{
	return real ? verbs_get_ctx(real->context)->dealloc_td(real) : 0;
}

static int dealloc_td(struct ibv_td *ibv)
{
	MIG_VERB;
	struct mig_context *context = mig_context(ibv->context);
	struct mig_td *td = mig_td(ibv);

	mig_lock(&context->lock);
	int error = td->users ? EBUSY : 0;
	mig_unlock(&context->lock);
	if (!error)
		error = td_end_real(td->real);
	if (error)
		return error;
	mig_lock(&context->lock);
	mig_list_remove(&td->link);
	mig_unlock(&context->lock);
	free(td);
	return 0;
}

void mig_td_offer(struct mig_context *context)
{
	/* Those that there are can be ended on a device without any. */
	MIG_PUT(context->verbs.dealloc_td, dealloc_td);
	MIG_OFFER(context, alloc_td, alloc_td);
}

static struct mig_td *td_of(struct mig_link *object)
{
	return MIG_CONTAINER(object, struct mig_td, link);
}

static int td_make(struct mig_context *context, struct mig_link *object)
{
	struct mig_td *td = td_of(object);

	td->next = td_make_real(context->next);
	return td->next || errno == EOPNOTSUPP ? 0 : errno;
}

static void td_end(struct mig_link *object)
{
	struct mig_td *td = td_of(object);

	td_end_real(td->next);
	td->next = NULL;
}

static void td_give_up(struct mig_context *context, struct mig_link *object)
{
	(void)context;
	td_end(object);
}

static void td_exchange(struct mig_context *context, struct mig_link *object)
{
	struct mig_td *td = td_of(object);

	(void)context;
	MIG_EXCHANGE(td->real, td->next);
}

static void td_forget(struct mig_link *object)
{
	td_of(object)->next = NULL;
}

const struct mig_kind mig_td_kind = {
	.name = "thread domain",
	.list = MIG_LIST_OF(tds),
	.make = td_make,
	.give_up = td_give_up,
	.exchange = td_exchange,
	.end = td_end,
	.forget = td_forget,
};
