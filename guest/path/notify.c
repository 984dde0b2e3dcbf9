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

	/* Asked for ever: to ask once too often after a move costs an event without a completion, which every
	 * application must expect; to forget one would cost a completion without an event. */
	__atomic_store_n(&cq->asked, solicited_only ? 1 : 2, __ATOMIC_RELEASE);
	if (!MIG_GATE(mig_context(ibv->context)->parked))
		result = cq->real->context->ops.req_notify_cq(cq->real, solicited_only);
	mig_section_leave_nested(section, outer);
	return result;
}

int mig_ask_for_events(struct mig_cq *cq, struct ibv_cq *real)
{
	int asked = __atomic_load_n(&cq->asked, __ATOMIC_ACQUIRE);

	return asked && cq->ibv.channel ? real->context->ops.req_notify_cq(real, asked == 1) : 0;
}

void mig_channel_owe(struct mig_channel *channel, struct mig_cq *cq)
{
	MIG_LOCKED(&channel->lock);
	if (cq->owed)
		return;
	cq->owed = 1;
	mig_list_add(&channel->owed_cqs, &cq->owed_link);
	mig_relay_fd_owe(&channel->event);
}

void mig_notify(struct mig_cq *cq)
{
	if (__atomic_load_n(&cq->asked, __ATOMIC_ACQUIRE) && cq->ibv.channel)
		mig_channel_owe(mig_comp_channel(cq->ibv.channel), cq);
}
