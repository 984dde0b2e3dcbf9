/* Asking for completion events. */
#ifndef MIGRRDMA_PATH_NOTIFY_H
#define MIGRRDMA_PATH_NOTIFY_H

#include "shadow/cq.h"

/* What the context's operations point at. */
int mig_req_notify_cq(struct ibv_cq *cq, int solicited_only);

/* Tells a device's CQ that an event is awaited, if one is; 0 or an errno. */
int mig_ask_for_events(struct mig_cq *cq, struct ibv_cq *real);

#endif
