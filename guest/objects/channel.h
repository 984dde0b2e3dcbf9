/* Completion channels, and the events that they owe the application. */
#ifndef MIGRRDMA_OBJECTS_CHANNEL_H
#define MIGRRDMA_OBJECTS_CHANNEL_H

#include "shadow/channel.h"
#include "shadow/cq.h"

/* The application is owed an event of that CQ. Must not hold the channel's lock. */
void mig_channel_owe(struct mig_channel *channel, struct mig_cq *cq);

/* A CQ that ends takes those with it that nobody has read yet. */
void mig_channel_drop_cq(struct mig_channel *channel, struct mig_cq *cq);

#endif
