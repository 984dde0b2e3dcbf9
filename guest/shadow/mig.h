/*
 * The shadow objects, and how their parts may be touched.
 *
 * The application holds shadow objects, which stay where they are for the life of the process; each points at the
 * real object of the moment (`real`) and, between a rebuild and its end, at the one that will follow (`next`).
 *
 * Locks, outermost first; nobody takes one while holding one that stands after it:
 *   1. the world (world.h)       shared by every verb that makes, changes or ends objects; stopped by the control
 *                                thread while it walks the lists or exchanges the real objects
 *   2. context->lock             the lists of one context, its tables' growth
 *   3. cq->lock                  polling, when it cannot go the fast way
 *   4. qp->send_lock, recv_lock  posting, likewise
 *   5. channel->lock             events handed out and not acknowledged
 * and sections (reader.h), inside which no lock is taken at all. Nothing is allocated or freed with 3 to 5 held:
 * an allocator may call back into verbs (UCX watches memory that way).
 */
#ifndef MIGRRDMA_MIG_H
#define MIGRRDMA_MIG_H

#include <stdint.h>

#include "wire/control.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/numbers.h"
#include "base/section.h"
#include "real/real.h"

#define MIG_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define MIG_UNLIKELY(condition) __builtin_expect(!!(condition), 0)

/* Numbers that differ between what the application knows (virtual) and the device (physical). */
struct mig_keymap;

/* A device as the application knows it. Made once per name and never freed, as others may hold it. */
struct mig_device {
	struct ibv_device ibv;
	char real_name[IBV_SYSFS_NAME_MAX]; /* differs from ibv.name after a move */
	__be64 guid;
	int index;
	struct mig_device *next;
};

/*
 * A descriptor that the application may put into its own epoll sets and that outlives the real one: an epoll
 * descriptor holding the real one, and an eventfd that counts events which we owe the application.
 */
struct mig_eventfd {
	int outer;
	int owed;
	int inner; /* the real one, non-blocking */
};

#define MIG_QPN_PAGE 4096

struct mig_gid_map {
	uint32_t port, index, new_port, new_index;
	union ibv_gid gid;
};

#define MIG_GID_MAPS 16

struct mig_context {
	struct verbs_context verbs; /* the application holds &verbs.context */
	struct ibv_context *real, *next;
	struct mig_device *device;
	char next_device[IBV_SYSFS_NAME_MAX];
	uint32_t id;
	int left_behind; /* the objects behind `real` are on the host that the process was restored from */
	int parked;	/* gate: the real objects must not be touched */
	int translate;	/* gate: some number differs */
	int at_rest;	/* all QPs are quiesced, and so is one that is made now; changes while the world is stopped */
	int has_windows; /* memory windows were allocated: their WRs name shadow MRs */
	int has_foreign_cqs; /* CQs of the real library share our channels */
	struct mig_eventfd async;
	struct ibv_async_event *owed; /* lock: of devices that were exchanged, not read by the application yet */
	uint32_t owed_events, owed_room; /* lock */
	struct mig_lock lock;
	struct mig_link pds, mrs, channels, cqs, qps; /* stopped world, or the lock */
	struct mig_link link;
	/* By physical QPN. Pages come and never go; entries change under the lock. */
	struct mig_qp **qpns[MIG_QPN_PAGE];
	struct mig_keymap *lkeys; /* virtual to physical; NULL: identity */
	/* QPs and memory regions by their virtual numbers; the regions' once there was a move. */
	struct mig_numbers vqpns, vlkeys, vrkeys;
	int keys_listed; /* the regions' numbers are complete */
	uint32_t flushing; /* QPs with kept sends that are to be posted; atomic */
	struct mig_gid_map gids[MIG_GID_MAPS];
	int gid_count;
	struct mig_gid_map next_gids[MIG_GID_MAPS];
	int next_gid_count;
	struct mig_keymap *next_lkeys;
};

struct mig_pd {
	struct ibv_pd ibv;
	struct ibv_pd *real, *next;
	struct mig_link link;
};

struct mig_mr {
	struct ibv_mr ibv;
	struct ibv_mr *real, *next;
	uint64_t iova;
	unsigned int access;
	struct mig_link link;
};

struct mig_channel {
	struct ibv_comp_channel ibv;
	struct ibv_comp_channel *real, *next;
	struct mig_eventfd event;
	struct mig_lock lock; /* owed_cqs, and the counters of events of its CQs */
	struct mig_link owed_cqs;
	struct mig_link link;
};

struct mig_cq {
	union {
		struct ibv_cq ibv;
		struct ibv_cq_ex ex;
	};
	struct ibv_cq *real, *next;
	struct ibv_cq_init_attr_ex *extended; /* how it was made, if by ibv_create_cq_ex */
	struct mig_lock walk;		      /* held from start_poll to end_poll; before all other locks */
	struct ibv_wc current;		      /* walk: the completion that the read functions show */
	int (*poll)(struct ibv_cq *cq, int entries, struct ibv_wc *wc);
	/* Gate: the one thread that may poll without the lock; NULL: everybody takes it. */
	struct mig_reader *fast;
	struct mig_reader *owner; /* who was made fast last; lock */
	int transfers;		  /* how often that changed; lock */
	struct mig_lock lock;
	int gated;   /* lock: QPs quiesced on it, plus one while parked */
	int markers; /* lock: markers of ours that are still in the real queue */
	int spare;   /* entries that the application does not know of: for so many markers at a time */
	struct ibv_wc *ring; /* lock: completions taken before the application asked for them */
	uint32_t ring_head, ring_tail, ring_size;
	int comp_vector;
	int asked; /* the last req_notify: 0 never, 1 solicited only, 2 any */
	uint32_t events; /* channel->lock: handed out */
	uint32_t async_events; /* handed out */
	int owed;	       /* channel->lock: on the channel's owed_cqs */
	struct mig_link owed_link;
	struct mig_link link;
};

/* Why a send does not go straight through. */
enum mig_gate {
	MIG_GATE_FRESH = 1,	/* nothing was sent yet */
	MIG_GATE_TRANSLATE = 2, /* keys differ */
	MIG_GATE_SHADOW = 4,	/* quiesced: keep it */
	MIG_GATE_FLUSH = 8,	/* kept ones go first */
};

enum mig_marker {
	MIG_MARKER_NONE = 0,
	MIG_MARKER_WANTED, /* to be posted as soon as there is room */
	MIG_MARKER_POSTED,
	MIG_MARKER_DONE,
	MIG_MARKER_FAILED,
};

/* A send that the application posted while the QP was quiesced; its scatter list and inline data follow. */
struct mig_send {
	struct mig_send *next;
	struct ibv_send_wr wr;
	struct ibv_sge sges[];
};

/* A receive as it was posted; `stride` of the QP apart. */
struct mig_recv {
	uint64_t wr_id;
	uint32_t num_sge;
	uint32_t reserved;
	struct ibv_sge sges[];
};

struct mig_qp {
	struct ibv_qp ibv;
	/* Posting a send looks at this line and the first one of ibv; posting a receive at the next line, too. */
	struct ibv_qp *real;
	int (*post_send)(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
	struct mig_keymap *rkeys; /* the peer's; NULL: identity */
	uint32_t send_gate;	  /* gate: enum mig_gate */
	uint32_t stride;	  /* of the receives' ring */

	/* Receiving: the ring holds what was posted and is not known to be completed, [head, tail). */
	int (*post_recv)(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);
	struct mig_reader *recv_fast; /* gate, as mig_cq.fast */
	char *ring;
	uint32_t ring_mask;
	uint32_t room;	    /* what one call may post: the real queue's depth */
	uint32_t head_seen; /* head when it was last looked at; belongs to the poster */
	uint32_t tail;	    /* belongs to the poster: recv_fast's thread or the lock's holder */
	struct mig_reader *recv_owner;
	int recv_transfers;
	struct mig_lock recv_lock;

	/* Sending, when it cannot go straight through. */
	struct ibv_qp *next;
	struct mig_lock send_lock;
	struct mig_send *kept, **kept_end; /* send_lock */
	uint32_t kept_count;
	struct mig_keymap *next_rkeys;

	/* What it takes to make it again. */
	struct ibv_qp_init_attr init;  /* as the application asked, CQs and SRQ as it knows them */
	struct ibv_qp_cap cap;	       /* as the application was told */
	/* Of the ring; belongs to the poller of recv_cq, and stands among what nobody writes: a line of its own. */
	uint32_t head;
	struct ibv_qp_attr attr;       /* every attribute at its last value, in the application's numbers */
	int masks[IBV_QPS_RTS + 1];    /* which of them the transition to INIT, RTR, RTS set */
	uint32_t extra_send;	       /* slots that the application does not know of */
	union ibv_gid sgid;	       /* what its source index meant when the application connected it */
	union ibv_gid psgid, pdgid;    /* from where its path leads to where now, after whatever moves */
	union ibv_gid next_psgid, next_pdgid;
	uint32_t dest_pqpn;
	uint32_t next_dest_pqpn;
	int recv_closed;   /* recv_lock: nobody is made fast */
	int recv_parked;   /* recv_lock: receives are only recorded */
	uint32_t parked_at; /* those before this place are on `real` */
	uint32_t reposted;  /* those before this place are on `next` */

	/* Quiescing; control thread with the world stopped, and cq->lock for the marker. */
	int quiesced; /* counted in its CQs' gated */
	int selected; /* by the message that is being answered */
	enum mig_marker marker;
	int marker_again; /* sends followed a marker that is still under way */
	uint64_t marker_id;
	int broken; /* a completion with an error was seen since the last reset */
	uint32_t async_events;
	uint64_t peer;
	struct mig_link link;
};

/* Of the processor's cache. QPs begin on one; their type does not say so, as a list's end is taken for an entry. */
#define MIG_LINE 64

/* The process. */
struct mig_process {
	struct mig_lock lock; /* contexts, devices, reasons, the thread */
	struct mig_link contexts;
	struct mig_device *devices;
	uint32_t next_context;
	int pid;
	uint64_t token;
	enum mig_state state; /* the control thread's */
	int restored; /* from a checkpoint, once or more; set by the control thread while the process is parked */
	int reasons;
	char reason[16][MIG_TEXT];
};

extern struct mig_process mig;

/* Keeps the reason why the process cannot be migrated; the same one only once. */
void mig_cannot_migrate(const char *format, ...) __attribute__((format(printf, 1, 2)));

int mig_poll_cq(struct ibv_cq *cq, int entries, struct ibv_wc *wc);

/* Whether the application's context is ours: libibverbs calls its own functions with its own objects. */
static inline struct mig_context *mig_context(struct ibv_context *context)
{
	return context && context->ops.poll_cq == mig_poll_cq
		       ? MIG_CONTAINER(context, struct mig_context, verbs.context)
		       : NULL;
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
MIG_SHADOW(pd, ibv_pd, mig_pd)
MIG_SHADOW(mr, ibv_mr, mig_mr)
MIG_SHADOW(cq, ibv_cq, mig_cq)
MIG_SHADOW(qp, ibv_qp, mig_qp)
MIG_SHADOW(comp_channel, ibv_comp_channel, mig_channel)

static inline struct mig_qp *mig_qp_by_pqpn(const struct mig_context *context, uint32_t pqpn)
{
	struct mig_qp **page = __atomic_load_n(&context->qpns[(pqpn >> 12) & 0xfff], __ATOMIC_CONSUME);

	return page ? __atomic_load_n(&page[pqpn & 0xfff], __ATOMIC_CONSUME) : NULL;
}

#endif
