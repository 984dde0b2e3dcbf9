/*
 * Letting go of the real objects and taking them up again. While a process is parked receives are recorded, verbs wait,
 * and nobody polls or asks for an event; so the objects may be exchanged, or the process be dumped.
 */
#ifndef MIGRRDMA_MOVE_PARK_H
#define MIGRRDMA_MOVE_PARK_H

#include "wire/control.h"

/*
 * The real objects are not touched any more after this, until mig_resume or mig_undo. 0, or an errno with *which the QP it is
 * about. ENOTSUP: there is something that cannot be moved, see mig.reason, and nothing has changed.
 */
int mig_park(struct mig_qp_name *which);

/* The real objects may be used again. 0 or an errno with *which the QP it is about. */
int mig_unpark(struct mig_qp_name *which);

#endif
