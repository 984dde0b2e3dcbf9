#include "path/slots.h"

#include "base/likely.h"

static int is_slot(const struct mig_slots *slots, uint64_t wr_id)
{
	uint64_t offset = wr_id - (uintptr_t)slots->memory;

	return offset < (uint64_t)slots->count * slots->stride && offset % slots->stride == 0;
}

void mig_slot_complete_if_one(const struct mig_context *context, struct ibv_wc *wc)
{
	const struct mig_slots *slots = __atomic_load_n(&context->slots, __ATOMIC_ACQUIRE);

	for (; MIG_UNLIKELY(slots != NULL); slots = __atomic_load_n(&slots->next, __ATOMIC_ACQUIRE)) {
		if (!is_slot(slots, wc->wr_id))
			continue;
		if (__atomic_load_n(&((struct mig_slot *)(uintptr_t)wc->wr_id)->posted, __ATOMIC_ACQUIRE))
			mig_slot_complete(wc);
		return;
	}
}
