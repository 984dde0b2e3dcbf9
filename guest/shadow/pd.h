/* Protection domains, and parent domains: a protection domain with a thread domain, or with allocators for its queues. */
#ifndef MIGRRDMA_SHADOW_PD_H
#define MIGRRDMA_SHADOW_PD_H

#include "shadow/context.h"

struct mig_td;

struct mig_pd {
	struct ibv_pd ibv;
	struct ibv_pd *real, *next;
	uint32_t id; /* what the agent is told, of a parent domain its parent's; the handle is another one on every device */
	uint32_t users; /* context->lock: parent domains in it */

	/* Of a parent domain. */
	struct mig_pd *parent;
	struct mig_td *td;
	struct ibv_parent_domain_init_attr init; /* as the application asked */

	struct mig_link link;
};

MIG_SHADOW(pd, ibv_pd, mig_pd)

#endif
