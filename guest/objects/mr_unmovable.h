/* Memory regions that cannot be registered again elsewhere, and what they are made of. */
#ifndef MIGRRDMA_OBJECTS_MR_UNMOVABLE_H
#define MIGRRDMA_OBJECTS_MR_UNMOVABLE_H

#include "shadow/mr.h"

void mig_mr_unmovable_offer(struct mig_context *context);

#endif
