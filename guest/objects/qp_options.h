/* What a queue pair may be given besides its attributes. */
#ifndef MIGRRDMA_OBJECTS_QP_OPTIONS_H
#define MIGRRDMA_OBJECTS_QP_OPTIONS_H

#include "shadow/qp.h"

void mig_qp_options_offer(struct mig_context *context);

/* Of the next one, as soon as it is there: what was set for a connection to come. Without them it connects as well. */
void mig_qp_set_ece_again(struct mig_qp *qp);

/* Of the next one, as soon as it may send; 0 or an errno. */
int mig_qp_limit_rate_again(struct mig_qp *qp);

#endif
