/* Protection domains, and parent domains as far as they are one. */
#ifndef MIGRRDMA_OBJECTS_PD_H
#define MIGRRDMA_OBJECTS_PD_H

#include "shadow/pd.h"

/* A shadow for a protection domain of whatever kind; takes the real one over. NULL and errno. */
struct ibv_pd *mig_pd_wrap(struct mig_context *context, struct ibv_pd *real);

void mig_pd_offer(struct mig_context *context);

#endif
