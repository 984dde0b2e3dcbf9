/* Keys of memory regions, and how regions are asked for so that nobody else has theirs. */
#ifndef MIGRRDMA_OBJECTS_MR_KEYS_H
#define MIGRRDMA_OBJECTS_MR_KEYS_H

#include "shadow/mr.h"

/* Of device memory `addr` is the real one, and `iova` the offset in it. */
enum mig_mr_way { MIG_MR_PLAIN, MIG_MR_IOVA, MIG_MR_IOVA2, MIG_MR_NULL, MIG_MR_DEVICE };

/* NULL and errno. */
struct ibv_mr *mig_mr_ask(enum mig_mr_way way, struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
			  unsigned int access);

/* Likewise, and after a move of a number that no other region is or was known by. */
struct ibv_mr *mig_mr_ask_until_unique(struct mig_context *context, enum mig_mr_way way, struct ibv_pd *pd, void *addr,
				       size_t length, uint64_t iova, unsigned int access);

/* Whether a new window's index is that of any rkey that the application, or a peer, knows. Must hold the context's lock. */
int mig_index_is_taken(const struct mig_context *context, uint32_t index);

/* A region's numbers begin and cease to be its own. Must hold the context's lock; 0 or ENOMEM. */
int mig_mr_keys_add(struct mig_context *context, struct mig_mr *mr);
void mig_mr_keys_remove(struct mig_context *context, struct mig_mr *mr);

#endif
