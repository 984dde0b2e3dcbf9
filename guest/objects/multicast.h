/* Multicast groups: joined again by the next queue pair. */
#ifndef MIGRRDMA_OBJECTS_MULTICAST_H
#define MIGRRDMA_OBJECTS_MULTICAST_H

#include "shadow/qp.h"

/* The next one joins them; 0 or an errno. */
int mig_groups_join_again(struct mig_qp *qp);

/* It has left them, or ends. */
void mig_groups_forget(struct mig_qp *qp);

#endif
