/* What the agent asks for, checked and carried out. */
#ifndef MIGRRDMA_MESSAGE_H
#define MIGRRDMA_MESSAGE_H

#include <stddef.h>

#include "control/session.h"

/* 0, or an errno: EPROTO for garbage. Then the connection is to be closed. */
int mig_message_handle(struct mig_session *session, const void *message, size_t length);

/* Drives a drain on and answers when it is over. */
int mig_message_tick(struct mig_session *session);

/* The agent has gone. A quiesce under way is undone; what is quiesced may wait for the next one (alone.h). */
void mig_message_lost(struct mig_session *session);

#endif
