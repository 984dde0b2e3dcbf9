/* Asking for completion events. */
#ifndef MIGRRDMA_PATH_NOTIFY_H
#define MIGRRDMA_PATH_NOTIFY_H

#include "shadow/channel.h"
#include "shadow/cq.h"

/* What the context's operations point at. */
int mig_req_notify_cq(struct ibv_cq *cq, int solicited_only);

/*
 * Whether the application has asked for an event that has not come. Of two requests the second may be for the same one, or
 * for the next: who has once asked twice counts as awaiting one too often rather than too seldom, as an event without a
 * completion is allowed and a completion without its event stops a program. Must not hold the channel's lock.
 */
int mig_awaits_event(struct mig_cq *cq);

/* Tells a device's CQ that an event is awaited; 0 or an errno. */
int mig_ask_for_events(struct mig_cq *cq, struct ibv_cq *real);

/* One of the device's has been read. Must hold the channel's lock. */
void mig_event_came(struct mig_cq *cq);

/* The application is owed an event of that CQ. Must not hold the channel's lock. */
void mig_channel_owe(struct mig_channel *channel, struct mig_cq *cq);

/* Likewise, if it awaits one: a completion has come of which no device tells it. */
void mig_notify(struct mig_cq *cq);

#endif
