#include "objects/mr.h"

#include <errno.h>
#include <stdlib.h>

#include "base/keymap.h"
#include "base/verb_gate.h"
#include "objects/offer.h"
#include "real/export.h"
#include "shadow/marks.h"
#include "shadow/pd.h"
#include "shadow/process.h"

static const char on_demand[] = "an on-demand paging memory region";

/* How a region was asked for; kept to ask again in the same way. */
enum way { WAY_PLAIN, WAY_IOVA, WAY_IOVA2 };

static struct ibv_mr *ask(enum way way, struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
			  unsigned int access)
{
	const struct mig_real *real = mig_real();

	if (way == WAY_IOVA2 && real->ibv_reg_mr_iova2)
		return real->ibv_reg_mr_iova2(pd, addr, length, iova, access);
	if (way == WAY_IOVA && real->ibv_reg_mr_iova)
		return real->ibv_reg_mr_iova(pd, addr, length, iova, (int)access);
	if (way == WAY_PLAIN)
		return real->ibv_reg_mr(pd, addr, length, (int)access);
	errno = EOPNOTSUPP;
	return NULL;
}

static int list_keys(struct mig_context *context, struct mig_mr *mr)
{
	int error = mig_numbers_add(&context->vlkeys, mr->ibv.lkey, mr);

	/* 0 is the key of every region without rights for others, with some drivers: any number of regions may have it. */
	if (!error && mr->ibv.rkey && (error = mig_numbers_add(&context->vrkeys, mr->ibv.rkey, mr)))
		mig_numbers_remove(&context->vlkeys, mr->ibv.lkey, mr);
	return error;
}

static void unlist_keys(struct mig_context *context, struct mig_mr *mr)
{
	mig_numbers_remove(&context->vlkeys, mr->ibv.lkey, mr);
	mig_numbers_remove(&context->vrkeys, mr->ibv.rkey, mr);
}

/* Before a move a number cannot be there twice: only then the list is worth its memory. Must hold the lock. */
static int list_all_keys(struct mig_context *context)
{
	if (context->keys_listed)
		return 0;
	MIG_EACH(&context->mrs, mr, struct mig_mr, link) {
		int error = list_keys(context, mr);

		if (error) {
			mig_numbers_free(&context->vlkeys);
			mig_numbers_free(&context->vrkeys);
			return error;
		}
	}
	context->keys_listed = 1;
	return 0;
}

/*
 * Whether a new physical key is another region's virtual one, after a move, or was: a peer goes on translating it, as nobody
 * tells it that a region has ended. No peer is told of an rkey of 0. Must hold the context's lock.
 */
static int collides(const struct mig_context *context, const struct ibv_mr *real)
{
	return mig_numbers_find(&context->vlkeys, real->lkey) ||
	       (real->rkey && (mig_numbers_find(&context->vrkeys, real->rkey) ||
			       mig_keymap_get(context->spent_rkeys, real->rkey) != real->rkey));
}

/* There is room: mr_next.c. Must hold the context's lock. */
static void spend_key(struct mig_context *context, struct mig_mr *mr)
{
	if (mr->has_differed && mr->ibv.rkey)
		mig_keymap_set(context->spent_rkeys, mr->ibv.rkey, ~mr->ibv.rkey);
	mr->has_differed = 0;
}

/*
 * A key that collides would need another virtual number, of which the peers would have to be told before the
 * application is. It is simpler to ask the device for another one, while the first still occupies its number.
 */
static struct ibv_mr *ask_until_unique(struct mig_context *context, enum way way, struct ibv_pd *pd, void *addr,
				       size_t length, uint64_t iova, unsigned int access)
{
	struct mig_refused refused = { 0 };
	struct ibv_mr *real = NULL, *other;
	int again = 1, error = 0;

	if (context->translate) {
		mig_lock(&context->lock);
		error = list_all_keys(context);
		mig_unlock(&context->lock);
	}
	while (again && !error) {
		real = ask(way, pd, addr, length, iova, access);
		if (!real)
			error = errno;
		if (!real || !context->translate)
			break;
		mig_lock(&context->lock);
		again = collides(context, real);
		mig_unlock(&context->lock);
		if (again && (error = mig_refuse(&refused, real)))
			mig_real()->ibv_dereg_mr(real);
	}
	while ((other = mig_refused_next(&refused)))
		mig_real()->ibv_dereg_mr(other);
	if (error)
		errno = error;
	return error ? NULL : real;
}

static struct ibv_mr *register_memory(enum way way, struct ibv_pd *ibv, void *addr, size_t length, uint64_t iova,
				      unsigned int access)
{
	struct mig_pd *pd = mig_pd(ibv);

	if (!pd)
		return ask(way, ibv, addr, length, iova, access);

	MIG_VERB_AS("ibv_reg_mr");
	struct mig_context *context = mig_context(ibv->context);
	struct mig_mr *mr = calloc(1, sizeof(*mr));
	if (!mr) {
		errno = ENOMEM;
		return NULL;
	}
	mr->real = ask_until_unique(context, way, pd->real, addr, length, iova, access);
	if (!mr->real) {
		free(mr);
		return NULL;
	}
	mr->ibv = *mr->real;
	mr->ibv.context = ibv->context;
	mr->ibv.pd = ibv;
	mr->iova = iova;
	mr->access = access;
	mig_lock(&context->lock);
	int error = context->keys_listed ? list_keys(context, mr) : 0;
	if (!error)
		mig_list_add(&context->mrs, &mr->link);
	mig_unlock(&context->lock);
	if (!error && access & IBV_ACCESS_ON_DEMAND)
		mig_mark(context, &mr->ibv, on_demand);
	if (!error)
		return &mr->ibv;
	mig_real()->ibv_dereg_mr(mr->real);
	free(mr);
	errno = error;
	return NULL;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
	return register_memory(WAY_PLAIN, pd, addr, length, (uintptr_t)addr, (unsigned int)access);
}

struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, int access)
{
	return register_memory(WAY_IOVA, pd, addr, length, iova, (unsigned int)access);
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, unsigned int access)
{
	return register_memory(WAY_IOVA2, pd, addr, length, iova, access);
}

static int end_real_mr(struct mig_mr *mr)
{
	MIG_VERB_AS("ibv_dereg_mr");
	struct mig_context *context = mig_context(mr->ibv.context);
	int error = mig_real()->ibv_dereg_mr(mr->real);
	if (error)
		return error;
	mig_lock(&context->lock);
	mig_list_remove(&mr->link);
	if (context->keys_listed)
		unlist_keys(context, mr);
	spend_key(context, mr);
	if (mig_keymap_get(context->lkeys, mr->ibv.lkey) != mr->ibv.lkey)
		mig_keymap_set(context->lkeys, mr->ibv.lkey, mr->ibv.lkey);
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
	if (context->translate)
		mig_cannot_migrate("a memory region that was registered anew after a move");
	if (flags & IBV_REREG_MR_CHANGE_ACCESS && (unsigned int)access & IBV_ACCESS_ON_DEMAND)
		mig_mark(context, ibv, on_demand);
	else if (flags & IBV_REREG_MR_CHANGE_ACCESS)
		while (mig_unmark(ibv, on_demand))
			;
	if (flags & IBV_REREG_MR_CHANGE_PD)
		ibv->pd = pd;
	if (flags & IBV_REREG_MR_CHANGE_TRANSLATION)
		mr->iova = (uintptr_t)addr;
	if (flags & IBV_REREG_MR_CHANGE_ACCESS)
		mr->access = (unsigned int)access;
	ibv->addr = mr->real->addr;
	ibv->length = mr->real->length;
	ibv->handle = mr->real->handle;
	mig_lock(&context->lock);
	if (context->keys_listed)
		unlist_keys(context, mr);
	if (mr->real->rkey != ibv->rkey)
		spend_key(context, mr);
	ibv->lkey = mr->real->lkey;
	ibv->rkey = mr->real->rkey;
	/* If there is no memory for the list, the next who needs it makes it anew. */
	if (context->keys_listed && list_keys(context, mr)) {
		mig_numbers_free(&context->vlkeys);
		mig_numbers_free(&context->vrkeys);
		context->keys_listed = 0;
	}
	mig_unlock(&context->lock);
	return result;
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
}
