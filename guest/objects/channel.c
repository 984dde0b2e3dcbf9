#include "objects/channel.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/section.h"
#include "base/verb_gate.h"
#include "objects/kinds.h"
#include "path/notify.h"
#include "real/export.h"

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *ibv)
{
	struct mig_context *context = mig_context(ibv);

	if (!context)
		return mig_real()->ibv_create_comp_channel(ibv);
	MIG_VERB;
	struct mig_channel *channel = calloc(1, sizeof(*channel));
	if (!channel) {
		errno = ENOMEM;
		return NULL;
	}
	mig_list_init(&channel->owed_cqs);
	channel->real = mig_real()->ibv_create_comp_channel(context->real);
	if (!channel->real) {
		free(channel);
		return NULL;
	}
	int error = mig_relay_fd_open(&channel->event, channel->real->fd);
	if (error) {
		mig_real()->ibv_destroy_comp_channel(channel->real);
		free(channel);
		errno = error;
		return NULL;
	}
	channel->ibv.context = ibv;
	channel->ibv.fd = channel->event.outer;
	MIG_LOCKED(&context->lock);
	mig_list_add(&context->channels, &channel->link);
	return &channel->ibv;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *ibv)
{
	struct mig_channel *channel = mig_comp_channel(ibv);

	if (!channel)
		return mig_real()->ibv_destroy_comp_channel(ibv);
	MIG_VERB;
	struct mig_context *context = mig_context(ibv->context);
	/* The real channel counts its CQs, and refuses while there are any. */
	int error = mig_real()->ibv_destroy_comp_channel(channel->real);
	if (error)
		return error;
	mig_lock(&context->lock);
	mig_list_remove(&channel->link);
	mig_unlock(&context->lock);
	mig_relay_fd_close(&channel->event);
	free(channel);
	return 0;
}

/* The shadow of a CQ that a real channel named; NULL: a CQ of the real library's own. */
static struct mig_cq *channel_shadow_cq(struct mig_context *context, struct ibv_cq *real, void *cq_context)
{
	if (!__atomic_load_n(&context->has_foreign_cqs, __ATOMIC_ACQUIRE))
		return cq_context;

	MIG_LOCKED(&context->lock);
	MIG_EACH(&context->cqs, cq, struct mig_cq, link)
		if (cq->real == real)
			return cq;
	return NULL;
}

/*
 * Counted while the CQ cannot go: ibv_destroy_cq takes the lock before it looks whether all that was handed out has been
 * acknowledged.
 */
static struct mig_cq *channel_pop_owed(struct mig_channel *channel)
{
	MIG_LOCKED(&channel->lock);
	if (channel->owed_cqs.next == &channel->owed_cqs)
		return NULL;

	struct mig_cq *cq = MIG_CONTAINER(channel->owed_cqs.next, struct mig_cq, owed_link);

	mig_list_remove(&cq->owed_link);
	cq->owed = 0;
	cq->events++;
	mig_relay_fd_paid(&channel->event);
	return cq;
}

static void channel_hand_out(struct mig_channel *channel, struct mig_cq *cq)
{
	MIG_LOCKED(&channel->lock);
	mig_event_came(cq);
	cq->events++;
}

/*
 * One event of the real channel, of a CQ of ours given to `keep` and then acknowledged to the device: we count what the
 * application acknowledges. Not before: what is not acknowledged keeps the CQ from its end.
 */
static int read_real(struct mig_context *context, struct mig_channel *channel, struct mig_cq **shadow,
		     struct ibv_cq **foreign, void **cq_context, int last,
		     void (*keep)(struct mig_channel *channel, struct mig_cq *cq))
{
	struct mig_section *section = mig_section_get();
	struct ibv_cq *real;
	int error = EAGAIN;

	if (!section)
		return ENOMEM;
	MIG_IN_EVENTS;
	uint64_t outer = mig_section_enter_nested(section);

	if (last || !MIG_GATE(context->parked)) {
		in_events = mig_into_events(context);
		error = mig_real()->ibv_get_cq_event(channel->real, &real, cq_context) ? errno : 0;
	}
	mig_section_leave_nested(section, outer);
	if (error)
		return error;
	*shadow = channel_shadow_cq(context, real, *cq_context);
	*foreign = real;
	if (*shadow) {
		keep(channel, *shadow);
		mig_real()->ibv_ack_cq_events(real, 1);
	}
	return 0;
}

int ibv_get_cq_event(struct ibv_comp_channel *ibv, struct ibv_cq **out, void **cq_context)
{
	struct mig_channel *channel = mig_comp_channel(ibv);
	int saved = errno;

	if (!channel)
		return mig_real()->ibv_get_cq_event(ibv, out, cq_context);

	struct mig_context *context = mig_context(ibv->context);
	for (;;) {
		struct ibv_cq *foreign = NULL;

		struct mig_cq *cq = channel_pop_owed(channel);
		int error = cq ? 0 : read_real(context, channel, &cq, &foreign, cq_context, 0, channel_hand_out);
		if (error == EAGAIN) {
			error = mig_relay_fd_wait(&channel->event);
			if (!error)
				continue;
		}
		if (error) {
			errno = error;
			return -1;
		}
		errno = saved;
		if (!cq) {
			*out = foreign;
			return 0;
		}
		*out = &cq->ibv;
		*cq_context = cq->ibv.cq_context;
		return 0;
	}
}

void ibv_ack_cq_events(struct ibv_cq *ibv, unsigned int count)
{
	struct mig_cq *cq = mig_cq(ibv);

	if (!cq) {
		mig_real()->ibv_ack_cq_events(ibv, count);
		return;
	}
	/* ibv_destroy_cq waits on this word. */
	__atomic_add_fetch(&ibv->comp_events_completed, count, __ATOMIC_RELEASE);
	mig_futex_wake_all((int *)&ibv->comp_events_completed);
}

void mig_channel_drop_cq(struct mig_channel *channel, struct mig_cq *cq)
{
	MIG_LOCKED(&channel->lock);
	if (cq->owed) {
		mig_list_remove(&cq->owed_link);
		mig_relay_fd_paid(&channel->event);
		cq->owed = 0;
	}
}

static struct mig_channel *channel_of(struct mig_link *object)
{
	return MIG_CONTAINER(object, struct mig_channel, link);
}

static void channel_count(const struct mig_link *object, struct mig_inventory *inventory)
{
	(void)object;
	inventory->channels++;
}

static int channel_make(struct mig_context *context, struct mig_link *object)
{
	struct mig_channel *channel = channel_of(object);

	channel->next = mig_real()->ibv_create_comp_channel(context->next);
	return channel->next ? 0 : errno;
}

static void channel_end(struct mig_link *object)
{
	struct mig_channel *channel = channel_of(object);
	int fd = channel->next->fd;

	/* As long as one of its CQs has not ended it is refused. Nobody waits there any more. */
	if (mig_real()->ibv_destroy_comp_channel(channel->next))
		close(fd);
	channel->next = NULL;
}

static void channel_give_up(struct mig_context *context, struct mig_link *object)
{
	struct mig_channel *channel = channel_of(object);

	(void)context;
	if (!channel->next)
		return;
	/* An exchange may have come this far and not to its end. */
	if (channel->event.inner == channel->next->fd)
		mig_relay_fd_exchange(&channel->event, channel->real->fd);
	channel_end(object);
}

static int channel_begin_exchange(struct mig_context *context, struct mig_link *object, struct mig_qp_name *which)
{
	struct mig_channel *channel = channel_of(object);

	(void)context, (void)which;
	return mig_relay_fd_exchange(&channel->event, channel->next->fd);
}

static void channel_exchange(struct mig_context *context, struct mig_link *object)
{
	struct mig_channel *channel = channel_of(object);

	(void)context;
	MIG_EXCHANGE(channel->real, channel->next);
}

static void channel_forget(struct mig_link *object)
{
	struct mig_channel *channel = channel_of(object);

	close(channel->next->fd);
	channel->next = NULL;
}

void mig_channels_take_events(struct mig_context *context)
{
	MIG_EACH(&context->channels, channel, struct mig_channel, link) {
		struct mig_cq *cq;
		struct ibv_cq *real;
		void *cq_context;

		while (!read_real(context, channel, &cq, &real, &cq_context, 1, mig_channel_owe))
			;
	}
}

const struct mig_kind mig_channel_kind = {
	.name = "completion channel",
	.list = MIG_LIST_OF(channels),
	.count = channel_count,
	.make = channel_make,
	.give_up = channel_give_up,
	.begin_exchange = channel_begin_exchange,
	.exchange = channel_exchange,
	.end = channel_end,
	.forget = channel_forget,
};
