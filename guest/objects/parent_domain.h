/* Parent domains. */
#ifndef MIGRRDMA_OBJECTS_PARENT_DOMAIN_H
#define MIGRRDMA_OBJECTS_PARENT_DOMAIN_H

#include "shadow/context.h"

struct mig_pd;

void mig_parent_domain_offer(struct mig_context *context);

/* Of one that the application ends; 0 or an errno. */
int mig_parent_domain_end_real(struct mig_pd *pd);

#endif
