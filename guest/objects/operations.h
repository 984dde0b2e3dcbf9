/* The table of operations that the application calls through. */
#ifndef MIGRRDMA_OBJECTS_OPERATIONS_H
#define MIGRRDMA_OBJECTS_OPERATIONS_H

#include "shadow/context.h"

/* Fills the table of a context whose real one is open; the extended operations only where that has them. */
void mig_fill_operations(struct mig_context *context);

#endif
