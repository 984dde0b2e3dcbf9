/* Verbs of the container's libibverbs that this library does not know. */
#ifndef MIGRRDMA_OBJECTS_STRANGERS_H
#define MIGRRDMA_OBJECTS_STRANGERS_H

#include "real/real.h"

/*
 * From now on they are handed real objects in place of ours, and whoever hands them one of ours has an object that cannot be moved.
 * 0, or an errno: that is not so, and nothing of ours may be given to the application.
 */
int mig_strangers_interpose(const struct mig_real *real);

#endif
