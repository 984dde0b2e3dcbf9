/* Which memory windows are bound to a queue pair. */
#ifndef MIGRRDMA_OBJECTS_MW_BINDING_H
#define MIGRRDMA_OBJECTS_MW_BINDING_H

#include "shadow/mw.h"

/* A queue pair is reset or ended: what was bound with it alone, is bound no more. */
void mig_mw_lose_qp(struct mig_context *context, const struct mig_qp *qp);

/* One that is good for this queue pair alone, or NULL. The verb gate must be closed. */
const struct mig_mw *mig_mw_bound_to(const struct mig_context *context, const struct mig_qp *qp);

#endif
