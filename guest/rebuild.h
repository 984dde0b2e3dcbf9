/*
 * Another set of real objects behind the same shadows: made, connected, exchanged, or given up.
 * All of it belongs to the control thread.
 */
#ifndef MIGRRDMA_REBUILD_H
#define MIGRRDMA_REBUILD_H

#include "quiesce.h"

/* The real objects are not touched any more after this, until mig_resume or mig_abort. */
int mig_park(void);

/* Everything of one context again, on that device. *what says at which object it failed. */
int mig_rebuild(uint32_t context, const char *device, int restored, const struct mig_gid_record *gids,
		uint32_t count, const char **what);

/* New QPs beside those of a running context, for peers that move. */
int mig_partner(const struct mig_selection *selection, struct mig_qp_name *which);

/* Connects the new QPs; those of a rebuilt context have their receives already. */
int mig_connect(const struct mig_connect_record *records, uint32_t count, struct mig_qp_name *which);

/* The keys of a peer's memory, for the QPs that mig_connect said face it. The whole map, in one or more parts. */
int mig_keys(uint64_t peer, const struct mig_key_record *records, uint32_t count, int more);

/* Goes on with the new objects where there are any. */
int mig_resume(struct mig_qp_name *which);

/* Goes on with the old ones. EXDEV: they are not there (the process was restored from a checkpoint). */
int mig_abort(void);

struct mig_context *mig_context_by_id(uint32_t id);
struct mig_qp *mig_qp_by_name(uint32_t context, uint32_t vqpn);

#endif
