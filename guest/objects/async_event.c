#include "objects/async_event.h"

#include <errno.h>
#include <string.h>

#include "base/likely.h"
#include "base/pages.h"
#include "base/section.h"
#include "real/export.h"
#include "shadow/cq.h"
#include "shadow/qp.h"
#include "shadow/srq.h"

/* Which member of its element an event means, as far as we shadow such objects. */
enum element { OF_OTHERS, OF_CQ, OF_QP, OF_SRQ };

static enum element element_of(enum ibv_event_type type)
{
	switch (type) {
	case IBV_EVENT_CQ_ERR:
		return OF_CQ;
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_COMM_EST:
	case IBV_EVENT_SQ_DRAINED:
	case IBV_EVENT_PATH_MIG:
	case IBV_EVENT_PATH_MIG_ERR:
	case IBV_EVENT_QP_LAST_WQE_REACHED:
		return OF_QP;
	case IBV_EVENT_SRQ_ERR:
	case IBV_EVENT_SRQ_LIMIT_REACHED:
		return OF_SRQ;
	default:
		return OF_OTHERS;
	}
}

/* By what the real object carries; not by its number, which may mean another one by now. Rare: a walk will do. */
static struct mig_qp *async_shadow_qp(struct mig_context *context, const struct ibv_qp *real)
{
	MIG_LOCKED(&context->lock);
	MIG_EACH(&context->qps, qp, struct mig_qp, link)
		if (qp == real->qp_context)
			return qp;
	return NULL;
}

static struct mig_cq *async_shadow_cq(struct mig_context *context, const struct ibv_cq *real)
{
	MIG_LOCKED(&context->lock);
	MIG_EACH(&context->cqs, cq, struct mig_cq, link)
		if (cq == real->cq_context)
			return cq;
	return NULL;
}

static struct mig_srq *async_shadow_srq(struct mig_context *context, const struct ibv_srq *real)
{
	MIG_LOCKED(&context->lock);
	MIG_EACH(&context->srqs, srq, struct mig_srq, link)
		if (srq == real->srq_context)
			return srq;
	return NULL;
}

/* Translates the element of an event; whether it names an object of ours. */
static int async_translate(struct mig_context *context, struct ibv_async_event *event)
{
	struct mig_cq *cq;
	struct mig_qp *qp;
	struct mig_srq *srq;

	switch (element_of(event->event_type)) {
	case OF_CQ:
		cq = async_shadow_cq(context, event->element.cq);
		if (cq)
			event->element.cq = &cq->ibv;
		return cq != NULL;
	case OF_QP:
		qp = async_shadow_qp(context, event->element.qp);
		if (qp)
			event->element.qp = &qp->ibv;
		return qp != NULL;
	case OF_SRQ:
		srq = async_shadow_srq(context, event->element.srq);
		if (srq)
			event->element.srq = &srq->ibv;
		return srq != NULL;
	default:
		return 0;
	}
}

/* Of a QP that had failed, and was made to fail again where it has come to; the application has been told of the first time. */
static int is_repeated(const struct ibv_async_event *event)
{
	struct mig_qp *qp = event->event_type == IBV_EVENT_QP_LAST_WQE_REACHED ? mig_qp(event->element.qp) : NULL;

	return qp && __atomic_exchange_n(&qp->told_last, 0, __ATOMIC_RELAXED);
}

/* The counter of an event that is handed out, of objects of ours: they are not ended before it is acknowledged. */
static uint32_t *handed_out(const struct ibv_async_event *event)
{
	struct mig_cq *cq;
	struct mig_qp *qp;
	struct mig_srq *srq;

	switch (element_of(event->event_type)) {
	case OF_CQ:
		cq = mig_cq(event->element.cq);
		return cq ? &cq->async_events : NULL;
	case OF_QP:
		qp = mig_qp(event->element.qp);
		return qp ? &qp->async_events : NULL;
	case OF_SRQ:
		srq = mig_srq(event->element.srq);
		return srq ? &srq->async_events : NULL;
	default:
		return NULL;
	}
}

static void async_hand_out(const struct ibv_async_event *event)
{
	uint32_t *counter = handed_out(event);

	if (counter)
		__atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

/* Must hold the context's lock. */
static int async_make_room(struct mig_context *context)
{
	if (context->owed_events < context->owed_room)
		return 0;

	uint32_t room = context->owed_room ? context->owed_room * 2 : 64;
	struct ibv_async_event *larger = mig_pages_alloc(room * sizeof(*larger));

	if (!larger)
		return ENOMEM;
	if (context->owed_events)
		memcpy(larger, context->owed, context->owed_events * sizeof(*larger));
	mig_pages_free(context->owed);
	context->owed = larger;
	context->owed_room = room;
	return 0;
}

int mig_context_take_events(struct mig_context *context)
{
	for (;;) {
		struct ibv_async_event event;

		mig_lock(&context->lock);
		int error = async_make_room(context);
		mig_unlock(&context->lock);
		if (error)
			return error;
		/* Its descriptor does not block: mig_relay_fd_open. */
		if (mig_real()->ibv_get_async_event(context->real, &event))
			return 0;

		struct ibv_async_event real = event;
		int ours = async_translate(context, &event);

		if (!ours || !is_repeated(&event)) {
			mig_lock(&context->lock);
			context->owed[context->owed_events++] = event;
			mig_unlock(&context->lock);
			mig_relay_fd_owe(&context->async);
		}
		if (ours)
			mig_real()->ibv_ack_async_event(&real);
	}
}

/* The oldest one that is owed. Whether there was one. */
static int async_pop_owed(struct mig_context *context, struct ibv_async_event *event)
{
	if (MIG_LIKELY(!__atomic_load_n(&context->owed_events, __ATOMIC_RELAXED)))
		return 0;

	MIG_LOCKED(&context->lock);
	if (!context->owed_events)
		return 0;
	*event = context->owed[0];
	memmove(context->owed, context->owed + 1, --context->owed_events * sizeof(*event));
	/* Before its object can be ended, of which the end takes the lock: mig_context_forget_events. */
	async_hand_out(event);
	mig_relay_fd_paid(&context->async);
	return 1;
}

/* What the device tells is counted before it is acknowledged there: until then its object is not ended. Whether it is news. */
static int async_deliver(struct mig_context *context, struct ibv_async_event *event)
{
	struct ibv_async_event real = *event;
	int ours = async_translate(context, event), repeated = ours && is_repeated(event);

	if (!repeated)
		async_hand_out(event);
	if (ours)
		mig_real()->ibv_ack_async_event(&real);
	return !repeated;
}

void mig_context_forget_events(struct mig_context *context, const void *object)
{
	uint32_t kept = 0;

	MIG_LOCKED(&context->lock);
	for (uint32_t i = 0; i < context->owed_events; i++) {
		/* Of all kinds the element is the union's first word; a port's number is no address. */
		if ((const void *)context->owed[i].element.qp == object)
			mig_relay_fd_paid(&context->async);
		else
			context->owed[kept++] = context->owed[i];
	}
	context->owed_events = kept;
}

int ibv_get_async_event(struct ibv_context *ibv, struct ibv_async_event *event)
{
	struct mig_context *context = mig_context(ibv);
	int saved = errno;

	if (!context)
		return mig_real()->ibv_get_async_event(ibv, event);

	for (;;) {
		struct mig_section *section = mig_section_get();
		int error = section ? EAGAIN : ENOMEM, owed = section && async_pop_owed(context, event);

		if (section && !owed) {
			MIG_IN_EVENTS;
			uint64_t outer = mig_section_enter_nested(section);

			if (!MIG_GATE(context->parked)) {
				in_events = mig_into_events(context);
				error = mig_real()->ibv_get_async_event(context->real, event) ? errno : 0;
			}
			mig_section_leave_nested(section, outer);
			if (!error && !async_deliver(context, event))
				continue;
		}
		if (owed || !error) {
			errno = saved;
			return 0;
		}
		if (error == EAGAIN)
			error = mig_relay_fd_wait(&context->async);
		if (error) {
			errno = error;
			return -1;
		}
	}
}

static void count_ack(uint32_t *completed)
{
	__atomic_add_fetch(completed, 1, __ATOMIC_RELEASE);
	mig_futex_wake_all((int *)completed);
}

void ibv_ack_async_event(struct ibv_async_event *event)
{
	enum element element = element_of(event->event_type);

	if (element == OF_CQ && mig_cq(event->element.cq))
		count_ack(&event->element.cq->async_events_completed);
	else if (element == OF_QP && mig_qp(event->element.qp))
		count_ack(&event->element.qp->events_completed);
	else if (element == OF_SRQ && mig_srq(event->element.srq))
		count_ack(&event->element.srq->events_completed);
	else
		mig_real()->ibv_ack_async_event(event);
}
