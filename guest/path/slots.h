/* Receives of shared queues that have completed. */
#ifndef MIGRRDMA_PATH_SLOTS_H
#define MIGRRDMA_PATH_SLOTS_H

#include "shadow/srq.h"

/* The completion is one of a receive of a shared queue: its slot becomes free. In a section. */
static inline void mig_slot_complete(struct ibv_wc *wc)
{
	struct mig_slot *slot = (struct mig_slot *)(uintptr_t)wc->wr_id;

	wc->wr_id = slot->wr_id;
	/* From here on it is the poster's. */
	__atomic_store_n(&slot->posted, 0, __ATOMIC_RELEASE);
}

/*
 * Likewise if it is one: of an error the completion itself does not say what it is of, and of a QP that we do not shadow
 * nothing says whether it shares its receives. In a section.
 */
void mig_slot_complete_if_one(const struct mig_context *context, struct ibv_wc *wc);

#endif
