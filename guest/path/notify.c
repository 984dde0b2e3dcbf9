#include "path/notify.h"

#include <errno.h>

#include "base/section.h"

int mig_req_notify_cq(struct ibv_cq *ibv, int solicited_only)
{
	struct mig_cq *cq = MIG_CONTAINER(ibv, struct mig_cq, ibv);
	struct mig_section *section = mig_section_get();
	int result = 0;

	if (!section)
		return ENOMEM;
	uint64_t outer = mig_section_enter_nested(section);

	/*
	 * Before the device can answer: who counts an event finds what asked for it. To ask for less takes nothing back; to take an
	 * event that has just come for one that is still awaited costs one too many.
	 */
	if (!solicited_only || __atomic_load_n(&cq->asks, __ATOMIC_RELAXED) == __atomic_load_n(&cq->came, __ATOMIC_RELAXED))
		__atomic_store_n(&cq->asked, solicited_only ? 1 : 2, __ATOMIC_RELAXED);
	__atomic_add_fetch(&cq->asks, 1, __ATOMIC_RELEASE);
	if (!MIG_GATE(mig_context(ibv->context)->parked))
		result = cq->real->context->ops.req_notify_cq(cq->real, solicited_only);
	else
		__atomic_store_n(&cq->asked_late, 1, __ATOMIC_RELEASE);
	mig_section_leave_nested(section, outer);
	return result;
}

int mig_awaits_event(struct mig_cq *cq)
{
	struct mig_channel *channel = mig_comp_channel(cq->ibv.channel);

	if (!channel)
		return 0;
	MIG_LOCKED(&channel->lock);
	return __atomic_load_n(&cq->asks, __ATOMIC_ACQUIRE) != cq->came;
}

int mig_ask_for_events(struct mig_cq *cq, struct ibv_cq *real)
{
	return real->context->ops.req_notify_cq(real, __atomic_load_n(&cq->asked, __ATOMIC_RELAXED) == 1);
}

void mig_event_came(struct mig_cq *cq)
{
	if (cq->came != __atomic_load_n(&cq->asks, __ATOMIC_ACQUIRE))
		__atomic_store_n(&cq->came, cq->came + 1, __ATOMIC_RELAXED);
}

void mig_channel_owe(struct mig_channel *channel, struct mig_cq *cq)
{
	MIG_LOCKED(&channel->lock);
	mig_event_came(cq);
	if (cq->owed)
		return;
	cq->owed = 1;
	mig_list_add(&channel->owed_cqs, &cq->owed_link);
	mig_relay_fd_owe(&channel->event);
}

void mig_notify(struct mig_cq *cq)
{
	if (mig_awaits_event(cq))
		mig_channel_owe(mig_comp_channel(cq->ibv.channel), cq);
}
