/*
 * Another set of real objects behind the same shadows: made (rebuild.c), connected (connect.c), exchanged or given up
 * (exchange.c), with nobody touching either (park.c).
 * All of it belongs to the control thread.
 */
#ifndef MIGRRDMA_REBUILD_H
#define MIGRRDMA_REBUILD_H

#include "move/quiesce.h"

#define MIG_EACH_CONTEXT(context) MIG_EACH(&mig.contexts, context, struct mig_context, link)
#define MIG_EACH_OF(context, list, entry, type) MIG_EACH(&context->list, entry, struct type, link)

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

/* Whether every QP that is quiesced has a new one that is connected, keys and all. The world must be stopped. */
int mig_is_prepared(void);

/* Goes on with the new objects where there are any. */
int mig_resume(struct mig_qp_name *which);

/* Goes on with the old ones. EXDEV: they are not there (the process was restored from a checkpoint). */
int mig_abort(void);

/* --- between the files of this: park.c, rebuild.c, connect.c, exchange.c --- */

/* The real objects may be used again. 0 or an errno with *which the QP it is about. */
int mig_unpark(struct mig_qp_name *which);

/* Tells a device's CQ that an event is awaited, if one is. */
int mig_ask_for_events(struct mig_cq *cq, struct ibv_cq *real);

/* Gives the next objects of a context up, as far as they were made. */
void mig_give_up(struct mig_context *context);

/* Whether the objects behind `real` are there: not those of a process that was restored from a checkpoint. */
int mig_is_live(const struct mig_context *context);

/* The numbers of the application's GID index on the next device; NULL: the same. */
const struct mig_gid_map *mig_next_gid(const struct mig_context *context, uint32_t port, uint32_t index);

/* Lets go of a map that no reader can reach: taken from its QPs before the last grace period, or never shown. */
void mig_drop_map(struct mig_keymap *map);

struct mig_context *mig_context_by_id(uint32_t id);
struct mig_qp *mig_qp_by_name(uint32_t context, uint32_t vqpn);

#endif
