/* Protection domains. */
#ifndef MIGRRDMA_SHADOW_PD_H
#define MIGRRDMA_SHADOW_PD_H

#include "shadow/context.h"

struct mig_pd {
	struct ibv_pd ibv;
	struct ibv_pd *real, *next;
	uint32_t id; /* what the agent is told; the handle is another one on every device */
	struct mig_link link;
};

MIG_SHADOW(pd, ibv_pd, mig_pd)

#endif
