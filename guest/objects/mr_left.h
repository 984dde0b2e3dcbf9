#ifndef MIGRRDMA_MR_LEFT_H
#define MIGRRDMA_MR_LEFT_H

#include "objects/mr_keys.h"

/*
 * Registers again what a process has unmapped a part of since, which no device could register whole: its mapped beginning or end,
 * whichever is longer. Whoever uses the rest by its keys fails. For nothing left a region of which no byte can be used.
 * NULL with errno: another one if all of it is mapped.
 */
struct ibv_mr *mig_mr_ask_for_what_is_left(enum mig_mr_way way, struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
					   unsigned int access);

#endif
