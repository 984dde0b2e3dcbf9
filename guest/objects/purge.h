/* Whether the completions of a queue pair go with it. */
#ifndef MIGRRDMA_OBJECTS_PURGE_H
#define MIGRRDMA_OBJECTS_PURGE_H

#include "shadow/context.h"

enum mig_purges { MIG_PURGES_UNKNOWN, MIG_PURGES, MIG_PURGES_NOT };

/*
 * Whether the device of the moment takes the completions of a QP that is reset or ended out of its CQs, as libmlx5 and most
 * others do, or leaves them there, as librxe does. Verbs allow both, and an application sees the difference.
 */
int mig_device_purges(struct mig_context *context);

#endif
