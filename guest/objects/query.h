/* Questions about a device: passed on, in the application's numbers. */
#ifndef MIGRRDMA_OBJECTS_QUERY_H
#define MIGRRDMA_OBJECTS_QUERY_H

#include "shadow/context.h"

void mig_query_offer(struct mig_context *context);

#endif
