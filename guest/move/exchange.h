/*
 * Going on: with the next objects in place of the real ones, which are ended or, of a restored process, forgotten; or
 * with those that there were. All of it belongs to the control thread.
 */
#ifndef MIGRRDMA_MOVE_EXCHANGE_H
#define MIGRRDMA_MOVE_EXCHANGE_H

#include "wire/control.h"

/* Goes on with the new objects where there are any. */
int mig_resume(struct mig_qp_name *which);

/* Goes on with the old ones. EXDEV: they are not there (the process was restored from a checkpoint). */
int mig_undo(void);

#endif
