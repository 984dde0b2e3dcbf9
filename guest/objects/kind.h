/*
 * What a kind of object can do, so that a move need not know which kinds there are. A kind that can be moved is a file
 * that fills one of these in, and a row of the table in kinds.h.
 *
 * The hooks are given one object by its link, and only by the control thread, with the verb gate closed. `count`, `make`,
 * `exchange` and `close` begin with the kinds that others are made of, the rest with those that are made of others.
 */
#ifndef MIGRRDMA_OBJECTS_KIND_H
#define MIGRRDMA_OBJECTS_KIND_H

#include <stddef.h>

#include "shadow/context.h"
#include "wire/control.h"

struct mig_kind {
	const char *name; /* as an error calls it */
	const char *(*name_of)(const struct mig_link *object); /* likewise that very one; NULL: as all of the kind */
	size_t list;	  /* where in struct mig_context its objects are listed: MIG_LIST_OF */

	/* For the inventory. NULL: it is not in there. */
	void (*count)(const struct mig_link *object, struct mig_inventory *inventory);

	/* Makes the next real object on context->next; 0 or an errno. */
	int (*make)(struct mig_context *context, struct mig_link *object);
	/* Once all of the kind are made; 0 or an errno. NULL: nothing is to be done. */
	int (*made)(struct mig_context *context);
	/* Ends the next one, if it was made: nobody has used it. */
	void (*give_up)(struct mig_context *context, struct mig_link *object);

	/* What of the exchange can fail; 0 or an errno, and *which if it is about a QP. NULL: nothing can. */
	int (*begin_exchange)(struct mig_context *context, struct mig_link *object, struct mig_qp_name *which);
	/* Puts the next one in the place of the real one, which it leaves in `next`. */
	void (*exchange)(struct mig_context *context, struct mig_link *object);
	/* Ends what the exchange has left in `next`; or, where one of the kind may go meanwhile, that of all. */
	void (*end)(struct mig_link *object);
	void (*end_all)(struct mig_context *context);
	/* Likewise of a process that was restored: the kernel does not know it, and its queue is a placeholder. */
	void (*forget)(struct mig_link *object);

	/* Parking ends the fast ways, for good after the next grace period. NULL: it has none. */
	void (*close)(struct mig_link *object);
	/* After that, takes what the real one holds; 0 or an errno. NULL: it holds nothing. */
	int (*park)(struct mig_link *object);
	/* Goes on with the real one of the moment; 0 or an errno, and *which if it is about a QP. NULL: nothing is to be done. */
	int (*unpark)(struct mig_link *object, struct mig_qp_name *which);
};

#define MIG_LIST_OF(member) offsetof(struct mig_context, member)

#define MIG_EXCHANGE(a, b)                                                                                 \
	do {                                                                                               \
		__typeof__(a) kept_ = (a);                                                                 \
		(a) = (b);                                                                                 \
		(b) = kept_;                                                                               \
	} while (0)

#endif
