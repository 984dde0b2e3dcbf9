/* Which memory windows are bound to a queue pair. */
#ifndef MIGRRDMA_OBJECTS_MW_BINDING_H
#define MIGRRDMA_OBJECTS_MW_BINDING_H

#include "shadow/mw.h"

/* A queue pair is reset or ended: what was bound with it alone, is bound no more. */
void mig_mw_lose_qp(struct mig_context *context, const struct mig_qp *qp);

/* One that is good for this queue pair alone, or NULL. The verb gate must be closed. */
const struct mig_mw *mig_mw_bound_to(const struct mig_context *context, const struct mig_qp *qp);

/* A region that has ended, to which no window can be bound any more: nor one of which a bind has failed. */
void mig_mw_lose_mr(struct mig_context *context, const struct mig_mr *mr);

/*
 * What is kept about a window that ends is not sent: the device would have done it by now, and the window would be gone. 0, or EBUSY:
 * nothing can be sent in its place.
 */
int mig_mw_forget_kept(struct mig_context *context, const struct mig_mw *mw);

/* Whether a request that is kept binds a window to that region, which the device would have done by now. */
int mig_mw_is_kept_for(struct mig_context *context, const struct ibv_mr *mr);

#endif
