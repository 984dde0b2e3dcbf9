/*
 * Posting to a shared receive queue: path/recv.c, with slots (shadow/srq.h) in place of a ring.
 */
#include "path/recv_shared.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/likely.h"
#include "base/pages.h"
#include "base/section.h"
#include "path/translate.h"

/* Most often the very next one is free: receives complete almost in their order. */
static inline int is_free(const struct mig_slot *slot)
{
	return !__atomic_load_n(&slot->posted, __ATOMIC_ACQUIRE);
}

/* What was posted is written before the device can complete it. */
static inline void slot_fill(struct mig_srq *srq, struct mig_slot *slot, const struct ibv_recv_wr *wr)
{
	slot->wr_id = wr->wr_id;
	slot->num_sge = (uint32_t)wr->num_sge;
	for (int i = 0; i < wr->num_sge; i++)
		mig_copy_sge(&slot->sges[i], &wr->sg_list[i]);
	srq->at = slot->next;
	__atomic_store_n(&slot->posted, ++srq->posted, __ATOMIC_RELEASE);
}

/* Likewise, of one entry. */
static inline void slot_fill_one(struct mig_srq *srq, struct mig_slot *slot, const struct ibv_recv_wr *wr)
{
	slot->wr_id = wr->wr_id;
	slot->num_sge = 1;
	mig_copy_sge(&slot->sges[0], &wr->sg_list[0]);
	srq->at = slot->next;
	__atomic_store_n(&slot->posted, ++srq->posted, __ATOMIC_RELEASE);
}

static inline void slot_release(struct mig_slot *slot)
{
	__atomic_store_n(&slot->posted, 0, __ATOMIC_RELEASE);
}

#define SLOT_BATCH 16
#define SLOT_SGES 256

/* Posts `count` slots that are filled; 0, or an errno and *failed is how many were taken before. */
static int post_slots(struct mig_srq *srq, struct ibv_srq *real, const struct mig_keymap *lkeys,
		      struct mig_slot *const *slots, int count, int *failed)
{
	struct ibv_recv_wr copies[SLOT_BATCH], *bad = copies;
	struct ibv_sge sges[SLOT_SGES];
	int done = 0;

	while (done < count) {
		int some = 0;
		uint32_t used = 0;

		for (; done + some < count && used + slots[done + some]->num_sge <= SLOT_SGES; some++) {
			struct mig_slot *slot = slots[done + some];

			copies[some] = (struct ibv_recv_wr){ .wr_id = (uintptr_t)slot, .sg_list = slot->sges,
							     .num_sge = (int)slot->num_sge };
			if (lkeys) {
				copies[some].sg_list = sges + used;
				mig_translate_sges(lkeys, sges + used, slot->sges, (int)slot->num_sge);
				used += slot->num_sge;
			}
			if (some)
				copies[some - 1].next = &copies[some];
		}
		int error = srq->post(real, copies, &bad);

		if (error) {
			*failed = done + (bad >= copies && bad < copies + some ? (int)(bad - copies) : 0);
			return error;
		}
		done += some;
	}
	return 0;
}

/* The next slot that is free, or NULL if there is none. Must hold the lock, as the only poster. */
static struct mig_slot *slot_find(struct mig_srq *srq)
{
	struct mig_slot *slot = srq->at;

	for (uint32_t i = 0; i < srq->slots; i++, slot = slot->next)
		if (is_free(slot))
			return slot;
	return NULL;
}

uint32_t mig_slots_taken(struct mig_srq *srq)
{
	MIG_LOCKED(&srq->lock);
	const struct mig_slot *slot = srq->at;
	uint32_t taken = 0;

	for (uint32_t i = 0; i < srq->slots; i++, slot = slot->next)
		taken += !is_free(slot);
	return taken;
}

int mig_slots_add(struct mig_srq *srq, uint32_t depth)
{
	struct mig_context *context = mig_context(srq->ibv.context);
	/* Some more, as one message that is long under way keeps its slot while the others go round. */
	uint32_t count = depth + depth / 4 + 16;
	/* One entry at least, which is recorded before the device refuses it. */
	uint32_t entries = srq->max_sge ? srq->max_sge : 1, stride = (uint32_t)(sizeof(struct mig_slot) + entries * sizeof(struct ibv_sge));
	struct mig_slots *slots = calloc(1, sizeof(*slots) + (size_t)count * stride);

	if (!slots)
		return ENOMEM;
	slots->srq = srq;
	slots->stride = stride;
	slots->count = count;

	struct mig_slot *first = (struct mig_slot *)(void *)slots->memory, *last = first;

	for (uint32_t i = 1; i < count; i++)
		last = last->next = (struct mig_slot *)(void *)(slots->memory + (size_t)i * stride);
	/* Known before one of them can complete. */
	mig_lock(&context->lock);
	slots->next = context->slots;
	__atomic_store_n(&context->slots, slots, __ATOMIC_RELEASE);
	mig_unlock(&context->lock);

	MIG_LOCKED(&srq->lock);
	MIG_SET_GATE(srq->fast, NULL);
	if (srq->owner.section)
		mig_synchronize_with(srq->owner.section);
	last->next = srq->at ? srq->at->next : first;
	if (srq->at)
		srq->at->next = first;
	else
		srq->at = first;
	srq->slots += count;
	return 0;
}

void mig_slots_free(struct mig_srq *srq)
{
	struct mig_context *context = mig_context(srq->ibv.context);
	struct mig_slots *ended = NULL;

	mig_lock(&context->lock);
	for (struct mig_slots **at = &context->slots, *slots; (slots = *at);) {
		if (slots->srq != srq) {
			at = &slots->next;
			continue;
		}
		__atomic_store_n(at, slots->next, __ATOMIC_RELEASE);
		/* Whoever looks at it goes on along the list: which is freed by another link, after the grace period. */
		mig_synchronize();
		slots->next = ended;
		ended = slots;
	}
	mig_unlock(&context->lock);
	while (ended) {
		struct mig_slots *slots = ended;

		ended = slots->next;
		free(slots);
	}
}

/* What it cannot be: there is no slot for it. */
static int is_impossible_for(const struct mig_srq *srq, const struct ibv_recv_wr *wr)
{
	return wr->num_sge < 0 || (uint32_t)wr->num_sge > srq->max_sge;
}

/*
 * Takes slots for as much of the list as goes in one; *wr is what follows. 0, or an errno about *wr; EAGAIN: more slots
 * are to be made.
 */
static int take_slots(struct mig_srq *srq, struct ibv_recv_wr **wr, struct mig_slot **slots, int *count)
{
	for (*count = 0; *wr && *count < SLOT_BATCH; *wr = (*wr)->next) {
		if (is_impossible_for(srq, *wr))
			return EINVAL;
		struct mig_slot *slot = slot_find(srq);

		if (!slot)
			return EAGAIN;
		slot_fill(srq, slot, *wr);
		slots[(*count)++] = slot;
	}
	return 0;
}

/* While the process is parked; what a full queue would have refused is refused. */
static int has_parked_room(struct mig_srq *srq)
{
	if (srq->most_taken >= srq->init.attr.max_wr) {
		/* An upper bound, made exact when it matters: completions were taken since, and nobody counts them. */
		const struct mig_slot *slot = srq->at;

		srq->most_taken = 0;
		for (uint32_t i = 0; i < srq->slots; i++, slot = slot->next)
			srq->most_taken += !is_free(slot);
	}
	return srq->most_taken < srq->init.attr.max_wr;
}

static int record_parked(struct mig_srq *srq, struct ibv_recv_wr **wr)
{
	for (; *wr; *wr = (*wr)->next) {
		struct mig_slot *slot;

		if (is_impossible_for(srq, *wr))
			return EINVAL;
		if (!has_parked_room(srq))
			return ENOMEM;
		if (!(slot = slot_find(srq)))
			return EAGAIN;
		slot_fill(srq, slot, *wr);
		srq->most_taken++;
	}
	return 0;
}

/* As far as it goes in one; likewise. Must hold the lock. */
static int post_batch(struct mig_srq *srq, struct ibv_recv_wr **wr)
{
	const struct mig_keymap *lkeys = mig_context(srq->ibv.context)->lkeys;
	struct mig_slot *slots[SLOT_BATCH];
	struct ibv_recv_wr *first = *wr;
	int count, taken, error = take_slots(srq, wr, slots, &count);
	int failed = count ? post_slots(srq, srq->real, lkeys, slots, count, &taken) : 0;

	if (!failed)
		return error;
	for (int i = taken; i < count; i++)
		slot_release(slots[i]);
	for (*wr = first; taken; taken--)
		*wr = (*wr)->next;
	return failed;
}

static int post_slowly(struct mig_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct mig_section *section = mig_section_get();
	int error = section ? 0 : ENOMEM;

	while (wr && !error) {
		mig_lock(&srq->lock);
		mig_owner_choose(&srq->owner, &srq->fast, section);
		if (srq->raw && !srq->parked) {
			struct ibv_recv_wr *list = wr;

			wr = NULL;
			error = srq->post(srq->real, list, &wr);
		} else {
			while (wr && !error)
				error = srq->parked ? record_parked(srq, &wr) : post_batch(srq, &wr);
		}
		if (!srq->raw && !srq->parked && !srq->closed && srq->owner.section == section && !mig_sections_usable())
			MIG_SET_GATE(srq->fast, mig_context(srq->ibv.context)->lkeys ? mig_section_second(section) : section);
		mig_unlock(&srq->lock);
		if (error == EAGAIN)
			error = mig_slots_add(srq, srq->init.attr.max_wr);
	}
	if (error && bad)
		*bad = wr;
	return error;
}

/*
 * What a fast post gives the device, and what the application gave us: side by side in memory that the device's function knows, so
 * that the second is not kept in registers for an error that never comes.
 */
struct post {
	struct ibv_recv_wr copy, *failed, *wr, **bad;
};

static __attribute__((noinline)) void post_was_refused(const struct post *post)
{
	slot_release((struct mig_slot *)(uintptr_t)post->copy.wr_id);
	if (post->bad)
		*post->bad = post->wr;
}

/* What is not of one entry and alone in its list, or has other keys. Ends the caller's section. */
static __attribute__((noinline)) int post_unusually(struct mig_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad,
						    struct mig_section *section)
{
	const struct mig_section *fast = MIG_GATE(srq->fast);
	struct ibv_sge sges[MIG_FEW_SGES];
	struct post post;

	if (MIG_UNLIKELY((fast != section && fast != mig_section_second(section)) || !wr || wr->next ||
			 (uint32_t)wr->num_sge > srq->few_sge || !is_free(srq->at))) {
		mig_section_leave(section);
		return post_slowly(srq, wr, bad);
	}
	/* Not before the gate was seen to be open: they are exchanged while it is shut. */
	const struct mig_keymap *lkeys = MIG_CONTAINER(srq->ibv.context, struct mig_context, verbs.context)->lkeys;
	struct mig_slot *slot = srq->at;

	if (MIG_LIKELY(wr->num_sge == 1))
		slot_fill_one(srq, slot, wr);
	else
		slot_fill(srq, slot, wr);
	post.copy.wr_id = (uintptr_t)slot;
	post.copy.next = NULL;
	post.copy.sg_list = wr->sg_list;
	post.copy.num_sge = wr->num_sge;
	post.wr = wr;
	post.bad = bad;
	if (MIG_LIKELY(lkeys != NULL)) {
		post.copy.sg_list = sges;
		mig_translate_sges(lkeys, sges, wr->sg_list, wr->num_sge);
	}
	int error = srq->post(srq->real, &post.copy, &post.failed);
	__builtin_prefetch(srq->at, 1);
	if (MIG_UNLIKELY(error))
		post_was_refused(&post);
	mig_section_leave(section);
	return error;
}

int mig_post_srq_recv(struct ibv_srq *ibv, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct mig_srq *srq = MIG_CONTAINER(ibv, struct mig_srq, ibv);
	struct mig_section *section = mig_section_mine;
	struct mig_slot *slot;
	struct post post;

	if (MIG_UNLIKELY(!mig_section_is_free(section)))
		return post_slowly(srq, wr, bad);
	mig_section_enter(section);
	if (MIG_UNLIKELY(MIG_GATE(srq->fast) != section || !wr || wr->next || wr->num_sge != 1 || !is_free(srq->at)))
		return post_unusually(srq, wr, bad, section);

	slot = srq->at;
	slot_fill_one(srq, slot, wr);
	post.copy.wr_id = (uintptr_t)slot;
	post.copy.next = NULL;
	post.copy.sg_list = wr->sg_list;
	post.copy.num_sge = 1;
	post.wr = wr;
	post.bad = bad;
	int error = srq->post(srq->real, &post.copy, &post.failed);
	/* The next slot has often left the near caches since it was used last: it is fetched now. */
	__builtin_prefetch(srq->at, 1);
	if (MIG_UNLIKELY(error))
		post_was_refused(&post);
	/* The caller's own, which is the owner's as long as it is inside: so it need not be kept over the call. */
	mig_section_leave(srq->owner.section);
	return error;
}

void mig_srq_close(struct mig_srq *srq)
{
	MIG_LOCKED(&srq->lock);
	srq->closed = 1;
	MIG_SET_GATE(srq->fast, NULL);
}

void mig_srq_park(struct mig_srq *srq)
{
	MIG_LOCKED(&srq->lock);
	srq->parked = 1;
	srq->parked_at = srq->posted;
	srq->most_taken = UINT32_MAX;
}

/* Lets the largest of a heap that lacks its order at its root alone sink to where it belongs. */
static void sink(struct mig_slot **heap, uint32_t root, uint32_t count)
{
	for (uint32_t child; (child = 2 * root + 1) < count; root = child) {
		if (child + 1 < count && heap[child + 1]->posted > heap[child]->posted)
			child++;
		if (heap[root]->posted >= heap[child]->posted)
			return;
		struct mig_slot *smaller = heap[root];

		heap[root] = heap[child];
		heap[child] = smaller;
	}
}

static void sort(struct mig_slot **slots, uint32_t count)
{
	for (uint32_t root = count / 2; root-- > 0;)
		sink(slots, root, count);
	for (uint32_t end = count; end-- > 1;) {
		struct mig_slot *last = slots[0];

		slots[0] = slots[end];
		slots[end] = last;
		sink(slots, 0, end);
	}
}

int mig_srq_repost(struct mig_srq *srq, struct ibv_srq *real, const struct mig_keymap *lkeys, uint64_t *from)
{
	struct mig_slot **slots, *slot = srq->at;
	uint32_t count = 0;
	int error = 0;

	if (srq->posted == *from)
		return 0;
	slots = mig_pages_alloc(srq->slots * sizeof(*slots));
	if (!slots)
		return ENOMEM;
	for (uint32_t i = 0; i < srq->slots; i++, slot = slot->next)
		if (slot->posted > *from)
			slots[count++] = slot;
	/* A slot that was free while those around it were not stands among later ones. */
	sort(slots, count);
	for (uint32_t done = 0; done < count && !error; done += SLOT_BATCH) {
		int some = count - done < SLOT_BATCH ? (int)(count - done) : SLOT_BATCH, failed = some;

		error = post_slots(srq, real, lkeys, slots + done, some, &failed);
		if (failed)
			*from = slots[done + (uint32_t)failed - 1]->posted;
	}
	if (!error)
		*from = srq->posted;
	mig_pages_free(slots);
	return error;
}

int mig_srq_open(struct mig_srq *srq)
{
	MIG_LOCKED(&srq->lock);
	int error = srq->parked && !srq->raw
			    ? mig_srq_repost(srq, srq->real, mig_context(srq->ibv.context)->lkeys, &srq->parked_at)
			    : 0;

	srq->parked = srq->closed = 0;
	return error;
}
