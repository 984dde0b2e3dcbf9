/* Memory regions that can be registered again on another device. */
#ifndef MIGRRDMA_OBJECTS_MR_H
#define MIGRRDMA_OBJECTS_MR_H

#include "shadow/mr.h"

/* Of one that is a reason against a move. */
extern const char mig_mr_on_demand[];

void mig_mr_offer(struct mig_context *context);

#endif
