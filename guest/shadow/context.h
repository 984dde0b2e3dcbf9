/*
 * The shadow objects, and how their parts may be touched.
 *
 * The application holds shadow objects, which stay where they are for the life of the process; each points at the
 * real object of the moment (`real`) and, between a rebuild and its end, at the one that will follow (`next`).
 *
 * Locks, outermost first; nobody takes one while holding one that stands after it:
 *   1. the verb gate             (base/verb_gate.h) shared by every verb that makes, changes or ends objects; closed by
 *                                the control thread while it walks the lists or exchanges the real objects
 *   2. context->lock             the lists of one context, its tables' growth
 *   3. cq->lock                  polling, when it cannot go the fast way
 *   4. qp->send_lock, recv_lock, srq->lock  posting, likewise
 *   5. channel->lock             events handed out and not acknowledged
 * and sections (base/section.h), inside which no lock is taken at all. Nothing is allocated or freed with 3 to 5 held:
 * an allocator may call back into verbs (UCX watches memory that way).
 */
#ifndef MIGRRDMA_SHADOW_CONTEXT_H
#define MIGRRDMA_SHADOW_CONTEXT_H

#include <infiniband/verbs.h>
#include <stdint.h>

#include "base/list.h"
#include "base/lock.h"
#include "base/numbers.h"
#include "base/relay_fd.h"
#include "shadow/device.h"

/* Numbers that differ between what the application knows (virtual) and the device (physical). */
struct mig_keymap;
struct mig_qp;
/* What was posted to shared receive queues: shadow/srq.h. */
struct mig_slots;
struct mig_mw_table;

#define MIG_QPN_PAGE 4096

/* Why completions are looked at, one by one. */
enum mig_translate {
	MIG_TRANSLATE_NUMBERS = 1, /* some differ */
	MIG_TRANSLATE_WINDOWS = 2, /* a peer may have invalidated one */
	MIG_TRANSLATE_DATAGRAMS = 4, /* they come from where the application takes them to come from, or not */
};

struct mig_gid_map {
	uint32_t port, index, new_port, new_index;
	union ibv_gid gid; /* what the application takes it for */
	union ibv_gid now; /* what it is */
};

#define MIG_GID_MAPS 16

/* One of its ports' GIDs that the application sends datagrams from, and what it takes it for. */
struct mig_own_gid {
	uint32_t port, index;
	union ibv_gid gid;
};

/* Of address handles that have ended so many different GIDs are remembered, the latest. */
#define MIG_FORMERS 256

/* What ends an object that is passed through, and what it is given (objects/ends.c). */
#define MIG_ENDS(X)                                                                                        \
	X(destroy_counters, ibv_counters)                                                                  \
	X(ibv_destroy_flow, ibv_flow)                                                                      \
	X(destroy_flow_action, ibv_flow_action)                                                            \
	X(destroy_wq, ibv_wq)                                                                              \
	X(destroy_rwq_ind_table, ibv_rwq_ind_table)

#define MIG_END_MEMBER(operation, type) int (*operation)(struct type *object);
struct mig_ends {
	MIG_ENDS(MIG_END_MEMBER)
};

struct mig_context {
	struct verbs_context verbs; /* the application holds &verbs.context */
	struct ibv_context *real, *next;
	struct mig_device *device;
	char next_device[IBV_SYSFS_NAME_MAX];
	uint32_t id;
	int left_behind; /* the objects behind `real` are on the host that the process was restored from */
	int parked;	/* gate: the real objects must not be touched */
	int translate;	/* gate: enum mig_translate; one more with mig_look_at_completions */
	int at_rest;	/* all QPs are quiesced, and so is one that is made now; changes while the verb gate is closed */
	int has_windows; /* memory windows were allocated: what is posted about them is followed */
	struct mig_mw_table *mw_table;
	int (*bind_mw)(struct ibv_qp *real, struct ibv_mw *mw, struct ibv_mw_bind *bind);
	int has_foreign_cqs; /* CQs of the real library share our channels */
	int purges;	/* enum mig_purges of objects/purge.h, of the device of the moment; atomic */
	uint32_t in_events; /* threads that take an event from the device, and have not acknowledged it yet; atomic */
	struct mig_relay_fd async;
	struct ibv_async_event *owed; /* lock: of devices that were exchanged, not read by the application yet */
	uint32_t owed_events, owed_room; /* lock */
	struct mig_ends ends; /* those of the device of the moment */
	struct mig_lock lock;
	struct mig_link tds, pds, parent_domains, dms, mrs, mws, channels, cqs, xrcds, srqs, ahs, qps; /* verb gate closed, or the lock */
	struct mig_link link;
	/* By physical QPN. Pages come and never go; entries change under the lock. */
	struct mig_qp **qpns[MIG_QPN_PAGE];
	/* By its lower bits the one that came last, or &mig_qp_none: so that a poller most often finds it with one look. */
	struct mig_qp *near_qps[MIG_QPN_PAGE];
	/* Read in sections. They are put in at the front, and taken out and freed after a grace period, under the lock. */
	struct mig_slots *slots;
	struct mig_keymap *lkeys; /* virtual to physical; NULL: identity */
	/* QPs and memory regions by their virtual numbers; the regions' once there was a move. */
	struct mig_numbers vqpns, vlkeys, vrkeys;
	/* Numbers of shared receive queues that have ended, before and after a move: peers go on translating them. */
	struct mig_numbers spent_srqns;
	int keys_listed; /* the regions' numbers are complete */
	uint32_t flushing; /* QPs with kept sends that are to be posted; atomic */
	uint32_t keeping;  /* QPs whose sends are kept, or were and are to be posted; atomic */
	struct mig_gid_map gids[MIG_GID_MAPS];
	int gid_count;
	struct mig_gid_map next_gids[MIG_GID_MAPS];
	int next_gid_count;
	struct mig_keymap *next_lkeys;
	/* rkeys of regions that have ended after they had differed, mapped to something else; room for those that there are. */
	struct mig_keymap *spent_rkeys, *next_spent_rkeys;
	uint32_t pds_made; /* lock */
	uint32_t datagram_qps; /* lock */
	struct mig_own_gid own_gids[MIG_GID_MAPS]; /* lock; known since the first address handle of each */
	int own_gid_count;
	struct mig_own_gid told_gids[MIG_GID_MAPS]; /* lock; which the application has asked for, the first ones */
	int told_gid_count;
	union ibv_gid formers[MIG_FORMERS]; /* lock; in a circle */
	uint32_t formers_made;
	int exchanged; /* the device is not the first one */
};

/* Stands in every context of ours, in a place that libibverbs has not used since its first version, and in no other. */
extern const char mig_context_mark;
#define MIG_CONTEXT_MARK ((void *(*)(void))(uintptr_t)&mig_context_mark)

/* Whether the application's context is ours: libibverbs calls its own functions with its own objects. */
static inline struct mig_context *mig_context(struct ibv_context *context)
{
	return context && context->ops._compat_alloc_pd == MIG_CONTEXT_MARK
		       ? MIG_CONTAINER(context, struct mig_context, verbs.context)
		       : NULL;
}

/*
 * From mig_into_events, in the section in which it takes one, to the end of the scope this thread may hold an event of the
 * device's. If a dump finds it there, it looks at the old object after the restore once more: so that must not have been freed.
 */
#define MIG_IN_EVENTS __attribute__((cleanup(mig_out_of_events))) uint32_t *in_events = NULL

static inline uint32_t *mig_into_events(struct mig_context *context)
{
	__atomic_add_fetch(&context->in_events, 1, __ATOMIC_SEQ_CST);
	return &context->in_events;
}

static inline void mig_out_of_events(uint32_t **count)
{
	if (*count)
		__atomic_sub_fetch(*count, 1, __ATOMIC_RELEASE);
}

/* The shadow, or NULL for an object that the real library made and that we handed out as it is; the real object. */
#define MIG_SHADOW(name, type, shadow)                                                                     \
	static inline struct shadow *mig_##name(struct type *object)                                       \
	{                                                                                                  \
		return object && mig_context(object->context) ? MIG_CONTAINER(object, struct shadow, ibv)  \
							      : NULL;                                       \
	}                                                                                                  \
	static inline struct type *mig_real_##name(struct type *object)                                    \
	{                                                                                                  \
		struct shadow *ours = mig_##name(object);                                                  \
		return ours ? ours->real : object;                                                         \
	}

#define MIG_EACH_OF(context, list, entry, type) MIG_EACH(&(context)->list, entry, struct type, link)

#endif
