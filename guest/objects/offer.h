/*
 * The tables that inline functions of verbs.h call through. What is not virtualised yet is passed to the real
 * object and handed back as the real library made it: its own context pointer then leads every later inline call
 * to the real library. What matters is that none of our objects goes with it.
 */
#ifndef MIGRRDMA_OBJECTS_OFFER_H
#define MIGRRDMA_OBJECTS_OFFER_H

#include "shadow/context.h"
#include "shadow/marks.h"

/* The real operations behind a context of ours. */
static inline struct verbs_context *mig_real_operations(struct ibv_context *ibv)
{
	return verbs_get_ctx(mig_context(ibv)->real);
}

/* What was made is handed on, as a reason against a move as long as it lives; NULL, and errno, if it could not be made. */
static inline void *mig_marked(struct ibv_context *ibv, void *made, const char *why)
{
	if (made)
		mig_mark(mig_context(ibv), made, why);
	return made;
}

/* The application calls through the tables while a device is exchanged, which most often changes nothing in them. */
#define MIG_PUT(place, ours)                                                                               \
	do {                                                                                               \
		__typeof__(place) put_ = (ours);                                                           \
		if ((place) != put_)                                                                       \
			__atomic_store_n(&(place), put_, __ATOMIC_RELEASE);                                \
	} while (0)

/* Where the real one has none, neither have we, and the inline function says "not supported"; the next device may have it. */
#define MIG_OFFER(context, operation, ours)                                                                \
	MIG_PUT((context)->verbs.operation, verbs_get_ctx_op((context)->real, operation) ? (ours) : NULL)

#endif
