/*
 * Address handles. The application holds what the device's library has made first, and may give it to queue pairs that are
 * passed through; so its address is only a name once the process has been moved, and nobody looks behind it any more.
 */
#ifndef MIGRRDMA_SHADOW_AH_H
#define MIGRRDMA_SHADOW_AH_H

#include "shadow/context.h"
#include "shadow/pd.h"

/* To where some of the queue pairs at its GID have moved (shadow/places.h). */
struct mig_way {
	struct mig_way *following;
	union ibv_gid gid;
	struct ibv_ah *real, *next;
};

struct mig_ah {
	struct ibv_ah *handle; /* what the application holds */
	struct ibv_ah *real, *next;
	struct mig_way *ways; /* put in at the front, and read in sections */
	struct mig_context *context;
	struct mig_pd *pd;
	int has_ended; /* for the application; requests that are kept still need it */
	struct ibv_ah_attr attr; /* in the application's numbers */
	struct mig_link link;
};

/* By what the application holds; NULL: none of ours. In a section, or with the verb gate shared or closed. */
struct mig_ah *mig_ah_find(const struct ibv_ah *handle);

/* 0; EEXIST: another one has that handle, and nothing has changed; ENOMEM likewise. */
int mig_ah_add(struct mig_ah *ah);

/* Sections may still look at it. */
void mig_ah_remove(struct mig_ah *ah);

/* In the child of a fork, which has none of its parent's. */
void mig_ahs_after_fork(void);

#endif
