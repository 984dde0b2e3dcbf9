/* Memory windows. */
#ifndef MIGRRDMA_OBJECTS_MW_H
#define MIGRRDMA_OBJECTS_MW_H

#include "shadow/mw.h"

void mig_mw_offer(struct mig_context *context);

/* Under the device's number of the moment. Must hold the context's lock, or have closed the verb gate. */
void mig_mw_list_physical(struct mig_context *context, struct mig_mw *mw);

/* Binds the next ones that are good for this queue pair, whose own next one may send; 0 or an errno. */
int mig_mw_bind_again(struct mig_context *context, struct mig_qp *qp);

#endif
