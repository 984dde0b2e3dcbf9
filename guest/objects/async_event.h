/*
 * Asynchronous events: read from the device of the moment, in the application's objects. What a device has raised when
 * it is exchanged for another one, and the application has not read yet, is owed to it.
 */
#ifndef MIGRRDMA_OBJECTS_ASYNC_EVENT_H
#define MIGRRDMA_OBJECTS_ASYNC_EVENT_H

#include "shadow/context.h"

/* Of a device that will be exchanged: what it has raised and nobody has read is owed from now on. 0 or an errno. */
int mig_context_take_events(struct mig_context *context);

/* An object that ends takes those with it that are about it. */
void mig_context_forget_events(struct mig_context *context, const void *object);

#endif
