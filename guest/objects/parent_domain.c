/*
 * Parent domains. A device that has none is given the parent in the place of one: what is lost is what a thread domain saves,
 * and where queues lie.
 *
 * The application's allocators are called where they would be called without us: in the verbs that make and end its queues.
 * The control thread must not call them, as a thread that stands still may have locked what they lock: there the device's
 * library is told to use its own, and what the application's have given stays with them.
 */
#include "objects/parent_domain.h"

#include <errno.h>
#include <stdlib.h>

#include "base/verb_gate.h"
#include "objects/kinds.h"
#include "objects/offer.h"
#include "real/real.h"
#include "shadow/pd.h"
#include "shadow/td.h"

static void *ask_application(struct ibv_pd *real, void *of, size_t size, size_t alignment, uint64_t type)
{
	struct mig_pd *pd = of;

	(void)real;
	if (mig_verb_gate_is_ours())
		return IBV_ALLOCATOR_USE_DEFAULT;
	return pd->init.alloc(&pd->ibv, pd->init.pd_context, size, alignment, type);
}

static void return_to_application(struct ibv_pd *real, void *of, void *memory, uint64_t type)
{
	struct mig_pd *pd = of;

	(void)real;
	if (!mig_verb_gate_is_ours())
		pd->init.free(&pd->ibv, pd->init.pd_context, memory, type);
}

/* Only as much of what the application gave is there as its mask says. */
static void remember(struct mig_pd *pd, const struct ibv_parent_domain_init_attr *attr)
{
	pd->init.comp_mask = attr->comp_mask;
	if (attr->comp_mask & IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS) {
		pd->init.alloc = attr->alloc;
		pd->init.free = attr->free;
	}
	if (attr->comp_mask & IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT)
		pd->init.pd_context = attr->pd_context;
}

static struct ibv_pd *parent_domain_make_real(struct mig_pd *pd, struct ibv_context *real, struct ibv_pd *parent, struct ibv_td *td)
{
	struct verbs_context *verbs = verbs_get_ctx_op(real, alloc_parent_domain);
	struct ibv_parent_domain_init_attr attr = { .pd = parent, .td = td, .comp_mask = pd->init.comp_mask };

	if (!verbs) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	if (attr.comp_mask & IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS) {
		attr.alloc = ask_application;
		attr.free = return_to_application;
		attr.comp_mask |= IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT;
	}
	attr.pd_context = pd;
	return verbs->alloc_parent_domain(real, &attr);
}

static struct ibv_pd *in_imported(struct ibv_context *ibv, const struct ibv_parent_domain_init_attr *attr)
{
	struct ibv_parent_domain_init_attr theirs = *attr;

	theirs.td = mig_real_td(attr->td);
	struct ibv_pd *pd = mig_real_operations(ibv)->alloc_parent_domain(mig_context(ibv)->real, &theirs);
	return mig_marked(ibv, pd, "a parent domain in an imported protection domain");
}

static struct ibv_pd *alloc_parent_domain(struct ibv_context *ibv, struct ibv_parent_domain_init_attr *attr)
{
	const uint32_t known = IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS | IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT;

	MIG_VERB;
	struct mig_context *context = mig_context(ibv);
	struct mig_pd *parent = mig_pd(attr->pd), *pd = NULL;

	if (attr->pd && !parent)
		return in_imported(ibv, attr);
	if (attr->comp_mask & ~known)
		errno = EOPNOTSUPP;
	else if (!parent)
		errno = EINVAL;
	else if (!(pd = calloc(1, sizeof(*pd))))
		errno = ENOMEM;
	if (!pd)
		return NULL;
	remember(pd, attr);
	pd->parent = parent;
	pd->td = attr->td ? mig_td(attr->td) : NULL;
	pd->id = parent->id;
	pd->ibv.context = ibv;
	pd->real = parent_domain_make_real(pd, context->real, parent->real, mig_real_td(attr->td));
	if (!pd->real) {
		int error = errno;

		free(pd);
		errno = error;
		return NULL;
	}
	pd->ibv.handle = pd->real->handle;
	MIG_LOCKED(&context->lock);
	parent->users++;
	if (pd->td)
		pd->td->users++;
	mig_list_add(&context->parent_domains, &pd->link);
	return &pd->ibv;
}

/* Where the parent stands in its place there is nothing to end. */
int mig_parent_domain_end_real(struct mig_pd *pd)
{
	struct mig_context *context = mig_context(pd->ibv.context);
	int error = pd->real == pd->parent->real ? 0 : mig_real()->ibv_dealloc_pd(pd->real);

	if (error)
		return error;
	MIG_LOCKED(&context->lock);
	pd->parent->users--;
	if (pd->td)
		pd->td->users--;
	return 0;
}

void mig_parent_domain_offer(struct mig_context *context)
{
	MIG_OFFER(context, alloc_parent_domain, alloc_parent_domain);
}

static struct mig_pd *parent_domain_of(struct mig_link *object)
{
	return MIG_CONTAINER(object, struct mig_pd, link);
}

static void parent_domain_count(const struct mig_link *object, struct mig_inventory *inventory)
{
	(void)object;
	inventory->pds++;
}

static int parent_domain_make(struct mig_context *context, struct mig_link *object)
{
	struct mig_pd *pd = parent_domain_of(object);

	pd->next = parent_domain_make_real(pd, context->next, pd->parent->next, pd->td ? pd->td->next : NULL);
	if (!pd->next && errno == EOPNOTSUPP)
		pd->next = pd->parent->next;
	return pd->next ? 0 : errno;
}

static void parent_domain_end(struct mig_link *object)
{
	struct mig_pd *pd = parent_domain_of(object);

	if (pd->next && pd->next != pd->parent->next)
		mig_real()->ibv_dealloc_pd(pd->next);
	pd->next = NULL;
}

static void parent_domain_give_up(struct mig_context *context, struct mig_link *object)
{
	(void)context;
	parent_domain_end(object);
}

static void parent_domain_exchange(struct mig_context *context, struct mig_link *object)
{
	struct mig_pd *pd = parent_domain_of(object);

	(void)context;
	MIG_EXCHANGE(pd->real, pd->next);
	pd->ibv.handle = pd->real->handle;
}

static void parent_domain_forget(struct mig_link *object)
{
	parent_domain_of(object)->next = NULL;
}

const struct mig_kind mig_parent_domain_kind = {
	.name = "parent domain",
	.list = MIG_LIST_OF(parent_domains),
	.count = parent_domain_count,
	.make = parent_domain_make,
	.give_up = parent_domain_give_up,
	.exchange = parent_domain_exchange,
	.end = parent_domain_end,
	.forget = parent_domain_forget,
};
