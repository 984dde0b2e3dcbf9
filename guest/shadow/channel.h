/* Completion channels. */
#ifndef MIGRRDMA_SHADOW_CHANNEL_H
#define MIGRRDMA_SHADOW_CHANNEL_H

#include "shadow/context.h"

struct mig_channel {
	struct ibv_comp_channel ibv;
	struct ibv_comp_channel *real, *next;
	struct mig_relay_fd event;
	struct mig_lock lock; /* owed_cqs, and the counters of events of its CQs */
	struct mig_link owed_cqs;
	struct mig_link link;
};

MIG_SHADOW(comp_channel, ibv_comp_channel, mig_channel)

#endif
