/* Asking for completion events. */
#ifndef MIGRRDMA_PATH_NOTIFY_H
#define MIGRRDMA_PATH_NOTIFY_H

#include "shadow/channel.h"
#include "shadow/cq.h"

/* What the context's operations point at. */
int mig_req_notify_cq(struct ibv_cq *cq, int solicited_only);

/* Tells a device's CQ that an event is awaited, if one is; 0 or an errno. */
int mig_ask_for_events(struct mig_cq *cq, struct ibv_cq *real);

/* The application is owed an event of that CQ. Must not hold the channel's lock. */
void mig_channel_owe(struct mig_channel *channel, struct mig_cq *cq);

/* Likewise, if it has ever asked for one: a completion of our own making has come. To owe one too many does no harm. */
void mig_notify(struct mig_cq *cq);

#endif
