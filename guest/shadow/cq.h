/* Completion queues, plain and extended. */
#ifndef MIGRRDMA_SHADOW_CQ_H
#define MIGRRDMA_SHADOW_CQ_H

#include "base/owner.h"
#include "shadow/context.h"

struct mig_section;

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
	/* Gate: the one thread that may poll without the lock, or one byte behind its word if completions are looked at; NULL:
	 * everybody takes the lock. */
	struct mig_section *fast;
	struct mig_owner owner; /* lock */
	struct mig_lock lock;
	int gated;   /* lock: QPs quiesced on it, plus one while parked */
	int markers; /* lock: markers of ours that are still in the real queue */
	int spare;   /* entries that the application does not know of: for so many markers at a time */
	struct ibv_wc *ring; /* lock: completions taken before the application asked for them */
	uint32_t ring_head, ring_tail, ring_size;
	int comp_vector;
	int moderated; /* how, since the application said so */
	struct ibv_moderate_cq moderation;
	int asked;	/* for by req_notify, of which the most is awaited: 0 never, 1 solicited only, 2 any */
	int asked_late; /* while parked: the device has not been told */
	uint64_t asks;	/* how often it was asked for an event, of which at most one has come for each */
	uint64_t came;	/* channel->lock: those that have, or were owed instead; never more than asks */
	uint32_t events; /* channel->lock: handed out */
	uint32_t async_events; /* handed out */
	int owed;	       /* channel->lock: on the channel's owed_cqs */
	struct mig_link owed_link;
	struct mig_link link;
};

MIG_SHADOW(cq, ibv_cq, mig_cq)

#endif
