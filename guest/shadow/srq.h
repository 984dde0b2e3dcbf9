/*
 * Shared receive queues, and what is kept of their receives.
 *
 * Receives of one queue complete out of order: whose message is longer is done later. So what was posted stands in slots,
 * and the address of its slot is the real request's wr_id, which no request of the application has by accident. A slot
 * never moves, so a poller needs neither the queue nor a lock to find it. It is taken by who posts, who alone goes round
 * the circle of slots, and set free by who polls.
 */
#ifndef MIGRRDMA_SHADOW_SRQ_H
#define MIGRRDMA_SHADOW_SRQ_H

#include "base/owner.h"
#include "shadow/context.h"

struct mig_cq;
struct mig_section;
struct mig_xrcd;

struct mig_slot {
	uint64_t posted; /* in which place of all of the queue's, from 1 on; 0: free */
	uint64_t wr_id;
	struct mig_slot *next; /* in the circle */
	uint32_t num_sge;
	uint32_t reserved;
	struct ibv_sge sges[];
};

/* Slots side by side, listed in the context: context->slots. Others may be put before it at any time, under its lock. */
struct mig_slots {
	struct mig_slots *next;
	const struct mig_srq *srq;
	uint32_t stride, count;
	char memory[] __attribute__((aligned(8)));
};

/* What one post without a list may have, to go the fast way. */
#define MIG_FEW_SGES 4

struct mig_srq {
	struct ibv_srq ibv;
	struct ibv_srq *real, *next;
	int (*post)(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);
	struct mig_section *fast; /* gate, as mig_cq.fast */
	struct mig_slot *at;	  /* the slot to look at first; it and `posted` belong to the poster, as a QP's tail */
	uint64_t posted;
	uint32_t max_sge, few_sge; /* few: no more than MIG_FEW_SGES */
	int raw; /* what is posted goes through as it is: a QP that we do not shadow completes where we do not see it */
	struct mig_owner owner; /* lock */
	struct mig_lock lock;	/* as a QP's recv_lock */
	uint32_t slots;		/* lock: how many */
	int closed;		/* lock: nobody is made fast */
	int parked;		/* lock: receives are only recorded */
	uint64_t parked_at;	/* those up to this place are on `real` */
	uint64_t reposted;	/* those up to this place are on `next` */
	uint32_t most_taken;	/* lock, while parked: so many slots are taken at most */
	int has_strangers;	/* QPs that we do not shadow use it, or have */

	/* What it takes to make it again. */
	struct ibv_srq_init_attr init; /* with what the application was told */
	struct mig_xrcd *xrcd;	       /* of one that messages of XRC name by its number; NULL: others */
	struct mig_cq *cq;	       /* of such a one: where its receives complete */
	uint32_t number;	       /* as it was when it was made */
	uint32_t limit;		       /* armed: below so many an event is raised */
	uint32_t async_events;	       /* handed out */
	struct mig_link link;
};

MIG_SHADOW(srq, ibv_srq, mig_srq)

#endif
