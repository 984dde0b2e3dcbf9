/* Memory of the device's own. */
#ifndef MIGRRDMA_SHADOW_DM_H
#define MIGRRDMA_SHADOW_DM_H

#include "shadow/context.h"

struct mig_dm {
	struct ibv_dm ibv;
	struct ibv_dm *real, *next;
	struct ibv_alloc_dm_attr init; /* as the application asked */
	void *contents; /* while the process is parked: what the image carries */
	struct mig_link link;
};

MIG_SHADOW(dm, ibv_dm, mig_dm)

#endif
