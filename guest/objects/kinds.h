/* The kinds of objects that are moved, each with a row here and a file of its own: see kind.h. */
#ifndef MIGRRDMA_OBJECTS_KINDS_H
#define MIGRRDMA_OBJECTS_KINDS_H

#include "objects/kind.h"

/* In the order of dependency: each is made of those before it. */
#define MIG_KINDS(X)                                                                                       \
	X(mig_channel_kind)                                                                                \
	X(mig_td_kind)                                                                                     \
	X(mig_pd_kind)                                                                                     \
	X(mig_parent_domain_kind)                                                                          \
	X(mig_dm_kind)                                                                                     \
	X(mig_mr_kind)                                                                                     \
	X(mig_mw_kind)                                                                                     \
	X(mig_cq_kind)                                                                                     \
	X(mig_xrcd_kind)                                                                                   \
	X(mig_srq_kind)                                                                                    \
	X(mig_ah_kind)                                                                                     \
	X(mig_qp_kind)

#define MIG_DECLARE_KIND(kind) extern const struct mig_kind kind;
MIG_KINDS(MIG_DECLARE_KIND)

/* A context's lists: empty, at its beginning; and without the objects that were left open, at its end. */
void mig_kinds_init(struct mig_context *context);
void mig_kinds_unlink(struct mig_context *context);

/* Each calls the hooks of that name for all objects of one context; what fails ends it, but for park and unpark. */
void mig_kinds_count(const struct mig_context *context, struct mig_inventory *inventory);
int mig_kinds_make(struct mig_context *context, const char **what);
void mig_kinds_give_up(struct mig_context *context);
int mig_kinds_begin_exchange(struct mig_context *context, struct mig_qp_name *which);
void mig_kinds_exchange(struct mig_context *context);
void mig_kinds_end(struct mig_context *context);
void mig_kinds_forget(struct mig_context *context);
void mig_kinds_close(struct mig_context *context);
int mig_kinds_park(struct mig_context *context);
int mig_kinds_unpark(struct mig_context *context, struct mig_qp_name *which);

#endif
