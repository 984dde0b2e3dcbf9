/* Kinds that are not moved yet: passed on with the real objects in place of ours, and the process is marked. */
#ifndef MIGRRDMA_OBJECTS_UNMOVABLE_H
#define MIGRRDMA_OBJECTS_UNMOVABLE_H

#include "shadow/context.h"

void mig_unmovable_offer(struct mig_context *context);

#endif
