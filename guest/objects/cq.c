/* Completion queues, from their making to their end; poll.c polls them. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "base/relay_fd.h"
#include "real/export.h"
#include "objects/object.h"
#include "base/pages.h"
#include "base/verb_gate.h"

/* Completes a shadow whose real CQ is there. */
void mig_cq_add(struct mig_context *context, struct mig_cq *cq)
{
	cq->poll = context->real->ops.poll_cq;
	cq->ibv.handle = cq->real->handle;
	cq->ibv.cqe = cq->real->cqe - cq->spare;
	mig_list_init(&cq->owed_link);
	MIG_LOCKED(&context->lock);
	mig_list_add(&context->cqs, &cq->link);
}

static struct ibv_cq *make(struct mig_cq *cq, struct ibv_context *real, struct ibv_comp_channel *channel, int entries)
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
		made = make(cq, real, channel, entries + cq->spare);
	if (!made) {
		cq->spare = 0;
		made = make(cq, real, channel, entries);
	}
	if (made)
		errno = saved;
	return made;
}

struct ibv_cq *mig_cq_make(struct mig_cq *cq, struct ibv_context *real, struct ibv_comp_channel *channel)
{
	int vector = cq->comp_vector;

	cq->comp_vector = vector % real->num_comp_vectors;
	struct ibv_cq *made = mig_cq_make_sized(cq, real, channel, cq->ibv.cqe);
	cq->comp_vector = vector;
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
	int error = mig_real()->ibv_resize_cq(cq->real, entries + cq->spare);
	ibv->cqe = cq->real->cqe - cq->spare;
	return error;
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
	MIG_VERB;
	struct mig_context *context = mig_context(cq->ibv.context);
	int error = mig_real()->ibv_destroy_cq(cq->real);

	if (error)
		return error;
	mig_lock(&context->lock);
	mig_list_remove(&cq->link);
	mig_unlock(&context->lock);
	mig_context_forget_events(context, &cq->ibv);
	struct mig_channel *channel = mig_comp_channel(cq->ibv.channel);
	if (channel) {
		/* What nobody has read yet is discarded with the CQ. */
		MIG_LOCKED(&channel->lock);
		if (cq->owed) {
			mig_list_remove(&cq->owed_link);
			mig_eventfd_paid(&channel->event);
			cq->owed = 0;
		}
	}
	return 0;
}

int ibv_destroy_cq(struct ibv_cq *ibv)
{
	struct mig_cq *cq = mig_cq(ibv);

	if (!cq)
		return mig_real()->ibv_destroy_cq(ibv);
	int error = end_real_cq(cq);
	if (error)
		return error;
	/* As the real one does: not before every event is acknowledged. Outside the world, as it may last. */
	wait_for_acks(&ibv->comp_events_completed, &cq->events);
	wait_for_acks(&ibv->async_events_completed, &cq->async_events);
	mig_pages_free(cq->ring);
	free(cq->extended);
	free(cq);
	return 0;
}
