/*
 * Making the next real objects: a whole context's on another device, or single queue pairs beside those that a running
 * process has. And giving them up again. All of it belongs to the control thread.
 */
#ifndef MIGRRDMA_MOVE_REBUILD_H
#define MIGRRDMA_MOVE_REBUILD_H

#include "move/quiesce.h"
#include "shadow/context.h"

/* Everything of one context again, on that device. *what says at which object it failed. */
int mig_rebuild(uint32_t context, const char *device, int restored, const struct mig_gid_record *gids,
		uint32_t count, const char **what);

/* New QPs beside those of a running context, for peers that move. */
int mig_prepare(const struct mig_selection *selection, struct mig_qp_name *which);

/* Gives the next objects of a context up, as far as they were made. */
void mig_give_up(struct mig_context *context);

#endif
