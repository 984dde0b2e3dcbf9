/* Requests of our own, behind the application's in a queue, whose completions say that those have completed. */
#ifndef MIGRRDMA_MOVE_MARKER_H
#define MIGRRDMA_MOVE_MARKER_H

#include "shadow/qp.h"

/*
 * Behind everything that was sent. False: the completion queue has no room for it before others have come back. One that
 * found the send queue full is still wanted.
 */
int mig_marker_post(struct mig_qp *qp);

/*
 * In the place of the requests that have brought the QP into SQE, on a device where it has sent nothing yet: one that fails
 * there for itself, from memory that nobody has registered.
 */
void mig_marker_post_failure(struct mig_qp *qp);

/* Likewise behind the receives of a QP that is in the error state: no message can take it. */
int mig_marker_post_recv(struct mig_qp *qp);

#endif
