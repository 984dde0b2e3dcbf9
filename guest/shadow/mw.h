/* Memory windows: what each is bound to, and how they are found by number. */
#ifndef MIGRRDMA_SHADOW_MW_H
#define MIGRRDMA_SHADOW_MW_H

#include "shadow/context.h"

struct mig_mr;
struct mig_qp;

struct mig_mw {
	struct ibv_mw ibv; /* its rkey is the application's to change, if it is of type 2 */
	struct ibv_mw *real, *next;
	/* The upper 24 bits of its rkeys, and the device's; of the lower eight, `variant` is added to get the device's. */
	uint32_t index, pindex;
	uint32_t variant, next_variant;
	int has_differed; /* and so peers may have it in their maps */
	int has_ended;	  /* nobody else is given its index */

	uint32_t rkey; /* virtual: the last one that was posted, while ibv's may be that of a request which is kept */
	/* What it was bound to last. Changes with what is posted and polled, and holds at rest. */
	struct mig_mr *mr; /* NULL: nothing */
	struct mig_qp *qp; /* with which it was bound; of type 2 it is good for that one alone */
	int is_unsure;	   /* that queue pair had failed, maybe at this very bind, and is not there to be asked */
	uint64_t addr, length;
	unsigned int access;

	struct mig_mw *near, *pnear; /* with other indices of the same place in the tables */
	struct mig_link link;
};

MIG_SHADOW(mw, ibv_mw, mig_mw)

/* So many rkeys each has in turn. */
#define MIG_MW_VARIANTS 256

/* By virtual and by physical index. Sections look; entries change under the context's lock, and end after a grace period. */
#define MIG_MW_PLACES 256
struct mig_mw_table {
	struct mig_mw *by_index[MIG_MW_PLACES], *by_pindex[MIG_MW_PLACES];
};

static inline struct mig_mw *mig_mw_by_index(const struct mig_mw_table *table, uint32_t index)
{
	struct mig_mw *mw = table ? __atomic_load_n(&table->by_index[index % MIG_MW_PLACES], __ATOMIC_CONSUME) : NULL;

	while (mw && mw->index != index)
		mw = __atomic_load_n(&mw->near, __ATOMIC_CONSUME);
	return mw;
}

static inline struct mig_mw *mig_mw_by_pindex(const struct mig_mw_table *table, uint32_t pindex)
{
	struct mig_mw *mw = table ? __atomic_load_n(&table->by_pindex[pindex % MIG_MW_PLACES], __ATOMIC_CONSUME) : NULL;

	while (mw && mw->pindex != pindex)
		mw = __atomic_load_n(&mw->pnear, __ATOMIC_CONSUME);
	return mw;
}

/* One of its rkeys as the device knows it, and the other way. */
static inline uint32_t mig_mw_to_physical(const struct mig_mw *mw, uint32_t rkey)
{
	return mw->pindex << 8 | ((rkey + mw->variant) & 0xff);
}

static inline uint32_t mig_mw_to_virtual(const struct mig_mw *mw, uint32_t rkey)
{
	return mw->index << 8 | ((rkey - mw->variant) & 0xff);
}

#endif
