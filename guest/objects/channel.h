/* Completion channels, and the events that they owe the application (path/notify.h). */
#ifndef MIGRRDMA_OBJECTS_CHANNEL_H
#define MIGRRDMA_OBJECTS_CHANNEL_H

#include "shadow/channel.h"
#include "shadow/cq.h"

/* A CQ that ends takes those with it that nobody has read yet. */
void mig_channel_drop_cq(struct mig_channel *channel, struct mig_cq *cq);

/* Those that the device has delivered and nobody has read are owed from now on. */
void mig_channels_take_events(struct mig_context *context);

#endif
