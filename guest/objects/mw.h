/* Memory windows: not moved. */
#ifndef MIGRRDMA_OBJECTS_MW_H
#define MIGRRDMA_OBJECTS_MW_H

#include "shadow/context.h"

void mig_mw_offer(struct mig_context *context);

#endif
