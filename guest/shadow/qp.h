/* Queue pairs, and what is kept of sends and receives. */
#ifndef MIGRRDMA_SHADOW_QP_H
#define MIGRRDMA_SHADOW_QP_H

#include "base/owner.h"
#include "shadow/context.h"

struct mig_section;
struct mig_xrcd;

/* Why a send does not go straight through. */
enum mig_gate {
	MIG_GATE_FRESH = 1,	/* nothing was sent yet */
	MIG_GATE_TRANSLATE = 2, /* keys differ */
	MIG_GATE_SHADOW = 4,	/* quiesced: keep it */
	MIG_GATE_FLUSH = 8,	/* kept ones go first */
	MIG_GATE_DATAGRAM = 32, /* of UD: to whom it goes may have moved, and address handles are other ones */
	MIG_GATE_STOPPED = 16,	/* the application has put it into SQD: keep it */
	MIG_GATE_SRQNS = 128,	/* beside TRANSLATE, of XRC: requests name shared receive queues, too */
	MIG_GATE_BUILD = 64,	/* ibv_wr_*: somebody builds what may have to be kept, and alone: path/build.c */
};

enum mig_marker {
	MIG_MARKER_NONE = 0,
	MIG_MARKER_WANTED, /* to be posted as soon as there is room */
	MIG_MARKER_POSTED,
	MIG_MARKER_DONE,
	MIG_MARKER_FAILED,
};

/* Kept, until whoever has said so says otherwise. */
#define MIG_GATE_KEEP (MIG_GATE_SHADOW | MIG_GATE_STOPPED)

/* Of a QP whose kept sends the device does not take although they were accepted. */
enum mig_refusal {
	MIG_REFUSAL_NONE = 0,
	MIG_REFUSAL_SEEN,   /* the control thread is to put the QP into the error state */
	MIG_REFUSAL_FAILED, /* it is there: what is left completes in error */
};

/* Scatter entries of one request; a QP that may have more is left to the real library. */
#define MIG_MOST_SGES 256

/* A send that the application posted while the QP was quiesced; its scatter list and inline data follow. */
struct mig_send {
	struct mig_send *next;
	struct ibv_send_wr wr;
	struct ibv_sge sges[];
};

enum mig_receives {
	MIG_RECEIVES_FROM_ITS_RING = 0,
	MIG_RECEIVES_FROM_SLOTS,
	MIG_RECEIVES_DATAGRAMS, /* from either */
};

/* A multicast group. */
struct mig_group {
	struct mig_group *following;
	union ibv_gid gid;
	uint16_t lid;
};

/* A receive as it was posted; `stride` of the QP apart. */
struct mig_recv {
	uint64_t wr_id;
	uint32_t num_sge;
	uint32_t reserved;
	struct ibv_sge sges[];
};

/* How requests are being built, between ibv_wr_start and ibv_wr_complete. */
enum mig_building {
	MIG_BUILDING_NOTHING = 0,
	MIG_BUILDING_DIRECTLY, /* by the real functions, whose lock is held */
	MIG_BUILDING_COPIES,   /* likewise; they are told of them when all are there, as windows are to be followed */
	MIG_BUILDING_TO_KEEP,  /* nothing of the real one is touched */
};

/* Of a QP that has ibv_wr_*: what is built and is not the device's yet. Belongs to who builds. */
struct mig_build {
	struct mig_lock lock; /* held from ibv_wr_start on by who builds to keep */
	struct mig_send *first, **end;
	struct mig_send *last; /* which the setters are about; NULL: it could not be made */
	uint32_t count;
	int error; /* the first one, which ibv_wr_complete tells */
	uint64_t operations; /* that the application asked for */
};

/* Of the processor's cache. QPs begin on one; their type does not say so, as a list's end is taken for an entry. */
#define MIG_LINE 64

struct mig_qp {
	union {
		struct ibv_qp ibv;
		struct ibv_qp_ex ex; /* if there is a build */
	};
	/* Building a send looks at this half of a line. */
	struct ibv_qp_ex *real_ex;
	int (*complete)(struct ibv_qp_ex *real);
	struct mig_build *build;
	uint32_t building; /* enum mig_building; atomic */
	uint32_t reserved;
	/* Posting a send looks at this line and the first one of ibv. */
	struct ibv_qp *real;
	int (*post_send)(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
	struct mig_keymap *rkeys; /* the peer's; NULL: identity */
	uint32_t send_gate;	  /* gate: enum mig_gate */
	uint32_t ring_mask;	  /* of the receives' ring */
	/* Fills the line: what one thread writes for receives is in none that another reads for sends. */
	uint64_t filling[4];

	/*
	 * Receiving: the ring holds what was posted and is not known to be completed, from `head` on to where the next one is
	 * recorded, which is `at` in memory. Posting one looks at this line, the first one of ibv and the ring; what it writes
	 * belongs to the poster: recv_fast's thread or the lock's holder.
	 */
	int (*post_recv)(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);
	struct ibv_qp *recv_real;      /* `real`, too */
	struct mig_section *recv_fast; /* gate, as mig_cq.fast; one byte behind the word: keys differ */
	char *at, *stop;	       /* up to `stop` it goes on straight: there it begins again, or somebody looks for room */
	uint32_t until;		       /* which of all that were posted the one at `stop` is */
	uint32_t stride;
	char *ring;
	struct mig_owner recv_owner; /* the first word is all that is in the line */
	struct mig_lock recv_lock;
	uint32_t turn; /* odd while at, stop and until are changed together */

	/* Sending, when it cannot go straight through. */
	struct ibv_qp *next;
	struct mig_lock send_lock;
	struct mig_send *kept, **kept_end; /* send_lock */
	uint32_t kept_count;
	enum mig_refusal refusal; /* send_lock */
	struct mig_keymap *next_rkeys;
	/* Of XRC: the peer's shared receive queues, as rkeys. */
	struct mig_keymap *srqns, *next_srqns;

	/* What it takes to make it again. */
	struct ibv_qp_init_attr init;  /* as the application asked, CQs and SRQ as it knows them */
	struct mig_xrcd *xrcd;	       /* of a target: shadow/xrcd.h */
	struct ibv_qp_cap cap;	       /* as the application was told */
	/* Of the ring; belongs to the poller of recv_cq, and stands in a line with what nobody else writes. */
	uint32_t head;
	uint32_t near;		    /* atomic; what a poller compares: the later of its physical numbers, and how it receives */
	enum mig_receives receives; /* what a poller does of one, in one word */
	int shares;		    /* its receives are those of a shared queue: shadow/srq.h */
	struct ibv_qp_attr attr;       /* every attribute at its last value, in the application's numbers */
	int masks[IBV_QPS_RTS + 1];    /* which of them the transition to INIT, RTR, RTS set */
	struct ibv_ece ece;	       /* has_ece */
	struct ibv_qp_rate_limit_attr rate; /* has_rate */
	int has_ece, has_rate;	       /* since the last reset */
	uint32_t extra_send;	       /* slots that the application does not know of */
	union ibv_gid sgid;	       /* what its source index meant when the application connected it */
	union ibv_gid psgid, pdgid;    /* from where its path leads to where now, after whatever moves */
	union ibv_gid next_psgid, next_pdgid;
	uint32_t dest_pqpn;
	uint32_t next_dest_pqpn;
	/* What the agents have agreed on, for a QP that moved before the application brought it to RTS. */
	uint32_t agreed_sq_psn, next_sq_psn;
	int psn_is_agreed;
	int recv_closed;   /* recv_lock: nobody is made fast */
	int recv_parked;   /* recv_lock: receives are only recorded */
	uint32_t parked_at; /* those before this place are on `real` */
	uint32_t reposted;  /* those before this place are on `next` */
	int reposting;	    /* `next` has been given some, of a QP that is exchanged alone */

	/* Quiescing; control thread with the verb gate closed, and cq->lock for the marker. */
	int quiesced; /* counted in its CQs' gated */
	int selected; /* by the message that is being answered */
	enum mig_marker marker;
	int marker_again; /* sends followed a marker that is still under way */
	uint64_t marker_id;
	int broken; /* a completion with an error was seen since the last reset */
	int failed; /* the device was found to have it in the error state */
	int sends_failed; /* likewise in SQE: the sends of a UC QP are flushed, and it goes on receiving */
	/* Of one that has failed: behind all of its receives that are to be flushed. recv_cq's lock. */
	enum mig_marker recv_marker;
	uint64_t recv_marker_id;
	int settled; /* while it is parked: everything that it has flushed has been collected */
	/* In SQD. Verb gate. */
	int stopped;		/* the application's sends are kept; counted in its CQs' gated */
	struct ibv_qp *resumed; /* the real one that was taken out of SQD for a drain */
	uint32_t async_events;
	int told_last; /* atomic: of its shared receives it was said that it takes no more; its successor says it again */
	uint64_t peer;
	/* What its markers need of the real device: move/marker.c. The control thread's, and of who ends the QP. */
	union {
		struct ibv_ah *marker_ah; /* of UD */
		struct ibv_mw *marker_mw; /* of XRC */
	};
	struct mig_group *groups; /* of UD: which it has joined; verb gate */
	struct mig_link link;
};

/* Elsewhere the locks in what is libibverbs' are of another size: there a call may look at a line more. */
#if defined(__x86_64__) && defined(__GLIBC__)
_Static_assert(offsetof(struct mig_qp, post_recv) % MIG_LINE == 0, "posting a receive looks at one line");
_Static_assert(offsetof(struct mig_qp, head) / MIG_LINE == offsetof(struct mig_qp, receives) / MIG_LINE,
	       "polling looks at one line");
#endif

MIG_SHADOW(qp, ibv_qp, mig_qp)

static inline int mig_is_datagram(const struct mig_qp *qp)
{
	return qp->ibv.qp_type == IBV_QPT_UD;
}

/* Whether any error is the end of it. */
static inline int mig_is_reliable(const struct mig_qp *qp)
{
	return qp->ibv.qp_type == IBV_QPT_RC || qp->ibv.qp_type == IBV_QPT_XRC_SEND || qp->ibv.qp_type == IBV_QPT_XRC_RECV;
}

/*
 * Whether somebody is between ibv_wr_start and ibv_wr_complete with the real queue, whose lock is held then. If the gate keeps
 * sends, and a grace period has passed since, nobody begins; and who has ended is out of the real queue after the next one.
 */
static inline int mig_is_building(const struct mig_qp *qp)
{
	uint32_t building = __atomic_load_n(&qp->building, __ATOMIC_ACQUIRE);

	return building == MIG_BUILDING_DIRECTLY || building == MIG_BUILDING_COPIES;
}

#endif
