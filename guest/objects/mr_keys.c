/*
 * Keys of memory regions. Before a move they are the device's, and unique; after one, a region may be known by a number that
 * the device gives to another one.
 */
#include "objects/mr_keys.h"

#include <errno.h>

#include "base/keymap.h"
#include "real/real.h"
#include "shadow/mw.h"

struct ibv_mr *mig_mr_ask(enum mig_mr_way way, struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
			  unsigned int access)
{
	const struct mig_real *real = mig_real();
	struct verbs_context *verbs = NULL;

	if (way == MIG_MR_IOVA2 && real->ibv_reg_mr_iova2)
		return real->ibv_reg_mr_iova2(pd, addr, length, iova, access);
	if (way == MIG_MR_IOVA && real->ibv_reg_mr_iova)
		return real->ibv_reg_mr_iova(pd, addr, length, iova, (int)access);
	if (way == MIG_MR_PLAIN)
		return real->ibv_reg_mr(pd, addr, length, (int)access);
	if (way == MIG_MR_NULL && (verbs = verbs_get_ctx_op(pd->context, alloc_null_mr)))
		return verbs->alloc_null_mr(pd);
	if (way == MIG_MR_DEVICE && (verbs = verbs_get_ctx_op(pd->context, reg_dm_mr)))
		return verbs->reg_dm_mr(pd, addr, iova, length, access);
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

/* Of a window that has ended as well. Must hold the context's lock. */
static int is_window(const struct mig_context *context, uint32_t index)
{
	MIG_EACH(&context->mws, mw, struct mig_mw, link)
		if (mw->index == index)
			return 1;
	return 0;
}

/* Before a move no number is there twice. */
int mig_index_is_taken(const struct mig_context *context, uint32_t index)
{
	const struct mig_keymap *spent = context->spent_rkeys;

	if (!(context->translate & MIG_TRANSLATE_NUMBERS))
		return 0;
	if (is_window(context, index))
		return 1;
	MIG_EACH(&context->mrs, mr, struct mig_mr, link)
		if (mr->ibv.rkey >> 8 == index)
			return 1;
	for (uint32_t i = 0; spent && i <= spent->mask; i++)
		if (spent->slots[i].from >> 8 == index && spent->slots[i].from != spent->slots[i].to)
			return 1;
	return 0;
}

/*
 * Whether a new physical key is another region's virtual one, after a move, or was: a peer goes on translating it, as nobody
 * tells it that a region has ended; of an rkey of 0 none is told. Null regions may all have one key, and none for others.
 * Must hold the context's lock.
 */
static int collides(const struct mig_context *context, enum mig_mr_way way, const struct ibv_mr *real)
{
	const struct mig_mr *other = mig_numbers_find(&context->vlkeys, real->lkey);

	if (way == MIG_MR_NULL)
		return other && !other->is_null;
	return other || (real->rkey && (mig_numbers_find(&context->vrkeys, real->rkey) || is_window(context, real->rkey >> 8) ||
					mig_keymap_get(context->spent_rkeys, real->rkey) != real->rkey));
}

/* There is room: mr_next.c. Must hold the context's lock. */
static void spend_key(struct mig_context *context, struct mig_mr *mr)
{
	if (mr->has_differed && mr->ibv.rkey)
		mig_keymap_set(context->spent_rkeys, mr->ibv.rkey, ~mr->ibv.rkey);
	mr->has_differed = 0;
}

/* Must hold the context's lock. */
static int has_twin(const struct mig_context *context, const struct mig_mr *mr)
{
	MIG_EACH(&context->mrs, other, struct mig_mr, link)
		if (other != mr && other->is_null && other->ibv.lkey == mr->ibv.lkey)
			return 1;
	return 0;
}

int mig_mr_keys_add(struct mig_context *context, struct mig_mr *mr)
{
	return context->keys_listed ? list_keys(context, mr) : 0;
}

void mig_mr_keys_remove(struct mig_context *context, struct mig_mr *mr)
{
	if (context->keys_listed)
		unlist_keys(context, mr);
	spend_key(context, mr);
	if (mig_keymap_get(context->lkeys, mr->ibv.lkey) != mr->ibv.lkey && !(mr->is_null && has_twin(context, mr)))
		mig_keymap_set(context->lkeys, mr->ibv.lkey, mr->ibv.lkey);
}

/*
 * A key that collides would need another virtual number, of which the peers would have to be told before the
 * application is. It is simpler to ask the device for another one, while the first still occupies its number.
 */
struct ibv_mr *mig_mr_ask_until_unique(struct mig_context *context, enum mig_mr_way way, struct ibv_pd *pd, void *addr,
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
		real = mig_mr_ask(way, pd, addr, length, iova, access);
		if (!real)
			error = errno;
		if (!real || !context->translate)
			break;
		mig_lock(&context->lock);
		again = collides(context, way, real);
		mig_unlock(&context->lock);
		/* A device has one null region for all: there is no other to be asked for. */
		if (again && (error = way == MIG_MR_NULL ? ENOMEM : mig_refuse(&refused, real)))
			mig_real()->ibv_dereg_mr(real);
	}
	while ((other = mig_refused_next(&refused)))
		mig_real()->ibv_dereg_mr(other);
	if (error)
		errno = error;
	return error ? NULL : real;
}
