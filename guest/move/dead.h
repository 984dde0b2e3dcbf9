/* Queue pairs in the error state: at a partner they are nobody's any more, and with a process they move as they are. */
#ifndef MIGRRDMA_MOVE_DEAD_H
#define MIGRRDMA_MOVE_DEAD_H

#include "shadow/qp.h"
#include "wire/control.h"

/*
 * Of one that was held: what was kept is the device's, to flush, and nothing is kept any more; what is done with is put on
 * *done. The verb gate must be closed.
 */
void mig_let_die(struct mig_qp *qp, struct mig_send **done);

/* Before the grace period of a park: nothing is posted any more to those that have failed. The verb gate must be closed. */
void mig_hold_dead(void);

/*
 * Once everything is parked: has them flush whatever was posted to them, and collects it. 0, or an errno with *which the QP
 * that it is about: ETIMEDOUT, its device does not flush.
 */
int mig_settle_dead(struct mig_qp_name *which);

#endif
