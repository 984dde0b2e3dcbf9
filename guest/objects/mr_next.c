/* Memory regions as a kind that is moved: kind.h. */
#include <errno.h>

#include "base/keymap.h"
#include "base/pages.h"
#include "base/section.h"
#include "objects/kinds.h"
#include "objects/mr_keys.h"
#include "objects/mr_left.h"
#include "path/hold.h"
#include "real/real.h"
#include "shadow/dm.h"
#include "shadow/mr.h"
#include "shadow/pd.h"

static struct mig_mr *mr_of(struct mig_link *object)
{
	return MIG_CONTAINER(object, struct mig_mr, link);
}

static void mr_count(const struct mig_link *object, struct mig_inventory *inventory)
{
	const struct mig_mr *mr = MIG_CONTAINER(object, const struct mig_mr, link);

	inventory->mrs++;
	inventory->keys++;
	/* That of on-demand paging may be all memory that there can be. */
	inventory->mr_bytes += mr->dm || mr->ibv.length == SIZE_MAX ? 0 : mr->ibv.length;
}

static const char *mr_name(const struct mig_link *object)
{
	const struct mig_mr *mr = MIG_CONTAINER(object, const struct mig_mr, link);

	return mr->access & IBV_ACCESS_ON_DEMAND ? "memory region with on-demand paging" : "memory region";
}

/* Another registration of the same memory, or what is left of it, with the same rights. */
static struct ibv_mr *register_again(const struct mig_mr *mr)
{
	enum mig_mr_way way = MIG_MR_IOVA;

	if (mr->dm)
		return mig_mr_ask(MIG_MR_DEVICE, mig_pd(mr->ibv.pd)->next, mr->dm->next, mr->ibv.length, mr->iova, mr->access);
	if (mr->is_null)
		way = MIG_MR_NULL;
	else if (mr->iova == (uintptr_t)mr->ibv.addr && !(mr->access & IBV_ACCESS_OPTIONAL_RANGE))
		way = MIG_MR_PLAIN;
	else if (mig_real()->ibv_reg_mr_iova2)
		way = MIG_MR_IOVA2;
	struct ibv_pd *pd = mig_pd(mr->ibv.pd)->next;
	struct ibv_mr *again = mig_mr_ask(way, pd, mr->ibv.addr, mr->ibv.length, mr->iova, mr->access);
	/* What is paged on demand need not be mapped. */
	if (again || mr->is_null || mr->access & IBV_ACCESS_ON_DEMAND)
		return again;
	return mig_mr_ask_for_what_is_left(way, pd, mr->ibv.addr, mr->ibv.length, mr->iova, mr->access);
}

/* Virtual to physical, for the regions where they differ; an empty map is none. */
static int map_keys(struct mig_context *context)
{
	uint32_t count = 0;

	MIG_EACH_OF(context, mrs, mr, mig_mr)
		count += mr->ibv.lkey != mr->next->lkey;
	if (!count)
		return 0;
	context->next_lkeys = mig_keymap_new(count);
	if (!context->next_lkeys)
		return ENOMEM;
	MIG_EACH_OF(context, mrs, mr, mig_mr)
		if (mr->ibv.lkey != mr->next->lkey && mig_keymap_set(context->next_lkeys, mr->ibv.lkey, mr->next->lkey))
			return ENOSPC;
	return 0;
}

/* Room for every region that there is, so that none of them fails to end for want of memory. */
static int keep_spent_keys(struct mig_context *context)
{
	const struct mig_keymap *old = context->spent_rkeys;
	uint32_t count = old ? old->used : 0;
	int differ = count > 0;

	MIG_EACH_OF(context, mrs, mr, mig_mr) {
		count++;
		differ |= mr->has_differed || mr->next->rkey != mr->ibv.rkey;
	}
	if (!differ)
		return 0;
	context->next_spent_rkeys = mig_keymap_new(count);
	if (!context->next_spent_rkeys)
		return ENOMEM;
	for (uint32_t i = 0; old && i <= old->mask; i++)
		if (old->slots[i].from || old->slots[i].to)
			mig_keymap_set(context->next_spent_rkeys, old->slots[i].from, old->slots[i].to);
	return 0;
}

static int mrs_made(struct mig_context *context)
{
	int error = map_keys(context);

	return error ? error : keep_spent_keys(context);
}

static int mr_make(struct mig_context *context, struct mig_link *object)
{
	struct mig_mr *mr = mr_of(object);

	(void)context;
	mr->next = register_again(mr);
	return mr->next ? 0 : errno;
}

static void mr_end(struct mig_link *object)
{
	struct mig_mr *mr = mr_of(object);

	mig_real()->ibv_dereg_mr(mr->next);
	mr->next = NULL;
}

/*
 * To free memory may give some back to the kernel, which UCX watches: it may then end regions of what was there, in this thread. So
 * their list is left alone meanwhile. Without memory for it they stay.
 */
static void mrs_end(struct mig_context *context)
{
	struct ibv_mr **old = NULL;
	uint32_t room = 0, count = 0;

	for (struct mig_link *one = context->mrs.next; one != &context->mrs; one = one->next)
		room++;
	if (room)
		old = mig_pages_alloc(room * sizeof(struct ibv_mr *));
	MIG_EACH_OF(context, mrs, mr, mig_mr) {
		if (old)
			old[count++] = mr->next;
		mr->next = NULL;
	}
	for (uint32_t i = 0; i < count; i++)
		mig_real()->ibv_dereg_mr(old[i]);
	mig_pages_free(old);
}

static void mr_give_up(struct mig_context *context, struct mig_link *object)
{
	(void)context;
	if (mr_of(object)->next)
		mr_end(object);
}

static void mr_exchange(struct mig_context *context, struct mig_link *object)
{
	struct mig_mr *mr = mr_of(object);

	MIG_EXCHANGE(mr->real, mr->next);
	mr->ibv.handle = mr->real->handle;
	if (mr->real->rkey != mr->ibv.rkey) {
		mr->has_differed = 1;
		mig_look_at_completions(context, MIG_TRANSLATE_NUMBERS);
	}
}

/* Registering has kept the memory from the children of forks: that the library undoes when a region ends. */
static void mr_forget(struct mig_link *object)
{
	struct mig_mr *mr = mr_of(object);

	if (mig_real()->dofork_range && !mr->is_null && !mr->dm && !(mr->access & IBV_ACCESS_ON_DEMAND))
		mig_real()->dofork_range(mr->ibv.addr, mr->ibv.length);
	mr->next = NULL;
}

const struct mig_kind mig_mr_kind = {
	.name = "memory region",
	.name_of = mr_name,
	.list = MIG_LIST_OF(mrs),
	.count = mr_count,
	.make = mr_make,
	.made = mrs_made,
	.give_up = mr_give_up,
	.exchange = mr_exchange,
	.end_all = mrs_end,
	.forget = mr_forget,
};
