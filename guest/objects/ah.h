/* Address handles: to whom datagrams go. */
#ifndef MIGRRDMA_OBJECTS_AH_H
#define MIGRRDMA_OBJECTS_AH_H

#include "shadow/ah.h"
#include "shadow/places.h"
#include "shadow/qp.h"

/*
 * Address handles for everything in the list, beside those of the handles at whose GIDs it was: on the next device of a context
 * that has one. 0 or an errno; what is there already is left.
 */
int mig_ah_make_ways(struct mig_context *context, const struct mig_places *places);

/* One for the queue pair's own port on its real device; NULL and errno. */
struct ibv_ah *mig_ah_to_itself(const struct mig_qp *qp);

/* Ends those that the application has ended while requests that were kept needed them. Must be in a verb. */
void mig_ah_end_rest(struct mig_context *context);

#endif
