/* Memory regions that can be registered again on another device. */
#ifndef MIGRRDMA_OBJECTS_MR_H
#define MIGRRDMA_OBJECTS_MR_H

#include "shadow/mr.h"

void mig_mr_offer(struct mig_context *context);

#endif
