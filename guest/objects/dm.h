/* Device memory and DMA handles: not moved. */
#ifndef MIGRRDMA_OBJECTS_DM_H
#define MIGRRDMA_OBJECTS_DM_H

#include "shadow/context.h"

void mig_dm_offer(struct mig_context *context);

#endif
