/* The table of operations that the application calls through. */
#ifndef MIGRRDMA_OBJECTS_OPERATIONS_H
#define MIGRRDMA_OBJECTS_OPERATIONS_H

#include "shadow/context.h"

/* Fills the table of a context whose real one is open, and that the application does not have yet. */
void mig_fill_operations(struct mig_context *context);

/* The part of it that depends on the device: the extended operations are there only where it has them. */
void mig_offer_operations(struct mig_context *context);

#endif
