/* What the next queue pairs face: their new other ends, and the keys of the memory there. */
#ifndef MIGRRDMA_MOVE_CONNECT_H
#define MIGRRDMA_MOVE_CONNECT_H

#include <stdint.h>
#include "wire/control.h"

/* Connects the new QPs; those of a rebuilt context have their receives already. */
int mig_connect(const struct mig_connect_record *records, uint32_t count, struct mig_qp_name *which);

/*
 * The keys of a peer's memory, or the numbers of its shared receive queues, for the QPs that mig_connect said face it. The whole
 * map, in one or more parts.
 */
int mig_keys(uint64_t peer, const struct mig_key_record *records, uint32_t count, int more, int of_srqs);

/* Whether every QP that is quiesced has a new one that is connected, keys and all. The verb gate must be closed. */
int mig_is_prepared(void);

#endif
