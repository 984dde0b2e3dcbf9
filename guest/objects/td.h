/* Thread domains. */
#ifndef MIGRRDMA_OBJECTS_TD_H
#define MIGRRDMA_OBJECTS_TD_H

#include "shadow/context.h"

void mig_td_offer(struct mig_context *context);

#endif
