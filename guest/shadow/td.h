/* Thread domains. */
#ifndef MIGRRDMA_SHADOW_TD_H
#define MIGRRDMA_SHADOW_TD_H

#include "shadow/context.h"

struct mig_td {
	struct ibv_td ibv;
	struct ibv_td *real, *next; /* NULL on a device that has none: it is a promise, which need not be heard */
	uint32_t users; /* context->lock: parent domains in it */
	struct mig_link link;
};

MIG_SHADOW(td, ibv_td, mig_td)

#endif
