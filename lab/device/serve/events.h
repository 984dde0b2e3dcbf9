/* Appending to an application's queue of events. */
#ifndef RNIC_SERVE_EVENTS_H
#define RNIC_SERVE_EVENTS_H

#include "serve.h"

void served_events_init(struct served_events *events, struct rnic_events *queue, int fd);

/* Into the queue, or behind it while it is full. */
void served_events_push(struct served_events *events, const struct rnic_event *event);

/* What had no room and has now. */
void served_events_catch_up(struct served_events *events);

/* What still waits about an object that has ended; all of it when `cookie` is 0. */
void served_events_forget(struct served_events *events, uint32_t kind, uint64_t cookie);
#endif
