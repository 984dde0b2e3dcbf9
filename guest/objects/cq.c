#include "objects/cq.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/pages.h"
#include "base/section.h"
#include "base/verb_gate.h"
#include "objects/async_event.h"
#include "objects/channel.h"
#include "objects/kinds.h"
#include "objects/offer.h"
#include "path/hold.h"
#include "path/notify.h"
#include "path/poll.h"
#include "real/export.h"
#include "shadow/marks.h"
#include "shadow/pd.h"

void mig_cq_add(struct mig_context *context, struct mig_cq *cq)
{
	cq->poll = context->real->ops.poll_cq;
	cq->ibv.handle = cq->real->handle;
	cq->ibv.cqe = cq->real->cqe - cq->spare;
	mig_list_init(&cq->owed_link);
	MIG_LOCKED(&context->lock);
	mig_list_add(&context->cqs, &cq->link);
}

static struct ibv_cq *cq_make_of_size(struct mig_cq *cq, struct ibv_context *real, struct ibv_comp_channel *channel, int entries)
{
	if (!cq->extended)
		return mig_real()->ibv_create_cq(real, entries, cq, channel, cq->comp_vector);

	struct verbs_context *verbs = verbs_get_ctx_op(real, create_cq_ex);
	struct ibv_cq_init_attr_ex attr = *cq->extended;

	if (!verbs) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	attr.cqe = (uint32_t)entries;
	attr.cq_context = cq;
	attr.channel = channel;
	attr.comp_vector = (uint32_t)cq->comp_vector;
	if (attr.comp_mask & IBV_CQ_INIT_ATTR_MASK_PD) {
		const struct mig_pd *pd = mig_pd(attr.parent_domain);
		int is_next = real != mig_context(pd->ibv.context)->real;

		attr.parent_domain = is_next ? pd->next : pd->real;
		/* Where the parent stands in the place of one: objects/parent_domain.c. */
		if (pd->parent && attr.parent_domain == (is_next ? pd->parent->next : pd->parent->real))
			attr.comp_mask &= ~(uint32_t)IBV_CQ_INIT_ATTR_MASK_PD;
	}
	return ibv_cq_ex_to_cq(verbs->create_cq_ex(real, &attr));
}

/* Enough for a drain to make good progress, and no more than a page of the device's. */
#define SPARE 64

/*
 * The application may have made the queue just large enough for its own completions, and leave them there while it
 * is drained. One marker too many would end the queue, so there is room for some; without, if the device has no more.
 */
struct ibv_cq *mig_cq_make_sized(struct mig_cq *cq, struct ibv_context *real, struct ibv_comp_channel *channel,
				 int entries)
{
	int saved = errno;
	struct ibv_cq *made = NULL;

	cq->spare = entries > 0 && entries <= INT_MAX - SPARE ? SPARE : 0;
	if (cq->spare)
		made = cq_make_of_size(cq, real, channel, entries + cq->spare);
	if (!made) {
		cq->spare = 0;
		made = cq_make_of_size(cq, real, channel, entries);
	}
	if (made)
		errno = saved;
	return made;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *ibv, int entries, void *cq_context,
			     struct ibv_comp_channel *channel, int vector)
{
	struct mig_context *context = mig_context(ibv);

	if (!context)
		return mig_real()->ibv_create_cq(ibv, entries, cq_context, channel, vector);
	MIG_VERB;
	struct mig_cq *cq = calloc(1, sizeof(*cq));
	if (!cq) {
		errno = ENOMEM;
		return NULL;
	}
	cq->ibv.context = ibv;
	cq->ibv.channel = channel;
	cq->ibv.cq_context = cq_context;
	cq->ibv.cqe = entries;
	cq->comp_vector = vector;
	cq->real = mig_cq_make_sized(cq, context->real, mig_real_comp_channel(channel), entries);
	if (!cq->real) {
		free(cq);
		return NULL;
	}
	mig_cq_add(context, cq);
	return &cq->ibv;
}

int ibv_resize_cq(struct ibv_cq *ibv, int entries)
{
	struct mig_cq *cq = mig_cq(ibv);

	if (!cq)
		return mig_real()->ibv_resize_cq(ibv, entries);
	MIG_VERB;
	/* As when it is made; who looks at what is spare does it with the verb gate closed. */
	int spare = entries > 0 && entries <= INT_MAX - SPARE ? SPARE : 0;
	int error = mig_real()->ibv_resize_cq(cq->real, entries + spare);

	if (error && spare) {
		spare = 0;
		error = mig_real()->ibv_resize_cq(cq->real, entries);
	}
	if (error)
		return error;
	cq->spare = spare;
	ibv->cqe = cq->real->cqe - spare;
	return 0;
}

static int modify_cq(struct ibv_cq *ibv, struct ibv_modify_cq_attr *attr)
{
	MIG_VERB;
	struct mig_cq *cq = mig_cq(ibv);
	int error = mig_real_operations(ibv->context)->modify_cq(cq->real, attr);

	if (error)
		return error;
	if (attr->attr_mask & ~(uint32_t)IBV_CQ_ATTR_MODERATE)
		mig_mark(mig_context(ibv->context), ibv, "a CQ that was modified in an unknown way");
	if (attr->attr_mask & IBV_CQ_ATTR_MODERATE) {
		cq->moderation = attr->moderate;
		cq->moderated = 1;
	}
	return 0;
}

void mig_cq_offer(struct mig_context *context)
{
	MIG_OFFER(context, modify_cq, modify_cq);
}

static void wait_for_acks(uint32_t *completed, const uint32_t *handed_out)
{
	for (;;) {
		uint32_t seen = __atomic_load_n(completed, __ATOMIC_ACQUIRE);

		if (seen == __atomic_load_n(handed_out, __ATOMIC_RELAXED))
			return;
		mig_futex_wait((int *)completed, (int)seen, -1);
	}
}

static int end_real_cq(struct mig_cq *cq)
{
	MIG_VERB_AS("ibv_destroy_cq");
	struct mig_context *context = mig_context(cq->ibv.context);
	int error = mig_real()->ibv_destroy_cq(cq->real);

	if (error)
		return error;
	mig_lock(&context->lock);
	mig_list_remove(&cq->link);
	mig_unlock(&context->lock);
	mig_context_forget_events(context, &cq->ibv);
	struct mig_channel *channel = mig_comp_channel(cq->ibv.channel);
	if (channel)
		mig_channel_drop_cq(channel, cq);
	return 0;
}

int ibv_destroy_cq(struct ibv_cq *ibv)
{
	struct mig_cq *cq = mig_cq(ibv);

	struct mig_mark *marks = mig_marks_take(ibv);
	int error = cq ? end_real_cq(cq) : mig_real()->ibv_destroy_cq(ibv);
	mig_marks_settle(marks, error);
	if (!cq)
		return error;
	if (error)
		return error;
	/* As the real one does: not before every event is acknowledged. Outside the verb gate, as it may last. */
	wait_for_acks(&ibv->comp_events_completed, &cq->events);
	wait_for_acks(&ibv->async_events_completed, &cq->async_events);
	mig_pages_free(cq->ring);
	free(cq->extended);
	free(cq);
	return 0;
}

static struct mig_cq *cq_of(struct mig_link *object)
{
	return MIG_CONTAINER(object, struct mig_cq, link);
}

static void cq_count(const struct mig_link *object, struct mig_inventory *inventory)
{
	(void)object;
	inventory->cqs++;
}

/* It saves events. Where the next device does not do it, there are more of them. */
static void moderate_again(struct mig_cq *cq)
{
	struct verbs_context *verbs = verbs_get_ctx_op(cq->next->context, modify_cq);
	struct ibv_modify_cq_attr attr = { IBV_CQ_ATTR_MODERATE, cq->moderation };

	if (cq->moderated && (!verbs || verbs->modify_cq(cq->next, &attr)))
		mig_log(MIG_LOG_WARN, "a CQ goes on without moderation");
}

static int cq_make(struct mig_context *context, struct mig_link *object)
{
	struct mig_cq *cq = cq_of(object);
	struct mig_channel *channel = mig_comp_channel(cq->ibv.channel);
	int vector = cq->comp_vector;

	cq->comp_vector = vector % context->next->num_comp_vectors;
	cq->next = mig_cq_make_sized(cq, context->next, channel ? channel->next : NULL, cq->ibv.cqe);
	cq->comp_vector = vector;
	if (!cq->next)
		return errno;
	moderate_again(cq);
	/*
	 * Before anybody can send: no event can be missed. What is asked for from here on follows when it is unparked; also
	 * that of which it is not known whether it was before or after what has been collected.
	 */
	mig_lock(&cq->lock);
	if (cq->ring_head == cq->ring_tail)
		__atomic_store_n(&cq->asked_late, 0, __ATOMIC_RELEASE);
	mig_unlock(&cq->lock);
	return mig_awaits_event(cq) ? mig_ask_for_events(cq, cq->next) : 0;
}

static void cq_end(struct mig_link *object)
{
	struct mig_cq *cq = cq_of(object);

	mig_real()->ibv_destroy_cq(cq->next);
	cq->next = NULL;
}

static void cq_give_up(struct mig_context *context, struct mig_link *object)
{
	struct mig_cq *cq = cq_of(object);

	(void)context;
	if (!cq->next)
		return;
	cq_end(object);
	/* The next one may have been told what this one has not been. */
	__atomic_store_n(&cq->asked_late, 1, __ATOMIC_RELEASE);
}

static void cq_exchange(struct mig_context *context, struct mig_link *object)
{
	struct mig_cq *cq = cq_of(object);

	(void)context;
	MIG_EXCHANGE(cq->real, cq->next);
	cq->poll = cq->real->context->ops.poll_cq;
	cq->ibv.handle = cq->real->handle;
}

static void cq_forget(struct mig_link *object)
{
	cq_of(object)->next = NULL;
}

static void cq_close(struct mig_link *object)
{
	mig_cq_gate(cq_of(object), 1);
}

/* Nobody polls any more: what is in the queue now is the rest. */
static int cq_park(struct mig_link *object)
{
	return mig_cq_collect(cq_of(object), 1);
}

/*
 * The application may have asked for an event while there was nobody to ask, and then completions have come. So ask, then
 * look: what came before is owed an event by us, what comes later raises its own. Who asked before that has told the device,
 * the old one or the next: each completion of which it knows raises its event without us.
 */
static void catch_up_on_events(struct mig_cq *cq)
{
	if (!__atomic_exchange_n(&cq->asked_late, 0, __ATOMIC_ACQUIRE) || !mig_awaits_event(cq))
		return;
	if (mig_ask_for_events(cq, cq->real) || mig_cq_collect(cq, 0))
		mig_log(MIG_LOG_ERROR, "a CQ may miss an event: %s", strerror(errno));
	mig_lock(&cq->lock);
	int waiting = cq->ring_head != cq->ring_tail;
	mig_unlock(&cq->lock);
	if (waiting)
		mig_notify(cq);
}

static int cq_unpark(struct mig_link *object, struct mig_qp_name *which)
{
	struct mig_cq *cq = cq_of(object);

	(void)which;
	catch_up_on_events(cq);
	mig_cq_gate(cq, -1);
	return 0;
}

const struct mig_kind mig_cq_kind = {
	.name = "completion queue",
	.list = MIG_LIST_OF(cqs),
	.count = cq_count,
	.make = cq_make,
	.give_up = cq_give_up,
	.exchange = cq_exchange,
	.end = cq_end,
	.forget = cq_forget,
	.close = cq_close,
	.park = cq_park,
	.unpark = cq_unpark,
};
