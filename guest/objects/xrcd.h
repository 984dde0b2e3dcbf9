/* XRC domains, from their opening to their end. */
#ifndef MIGRRDMA_OBJECTS_XRCD_H
#define MIGRRDMA_OBJECTS_XRCD_H

#include "shadow/xrcd.h"

void mig_xrcd_offer(struct mig_context *context);

/*
 * Takes what has come for the domain's targets to where it is the application's: out of the device's queues, while it is known by
 * whose number it is there. 0 or an errno. Must hold no lock.
 */
int mig_xrcd_collect(struct mig_xrcd *xrcd);

#endif
