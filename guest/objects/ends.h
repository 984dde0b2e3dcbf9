/* Where objects end that are passed through: for their marks to end with them. */
#ifndef MIGRRDMA_OBJECTS_ENDS_H
#define MIGRRDMA_OBJECTS_ENDS_H

#include "shadow/context.h"

/*
 * Puts ours before the functions that end such objects. The inline functions of verbs.h look for them in the table of the real
 * context, to which these objects lead; libibverbs itself and its providers have another table, and never come here.
 */
void mig_ends_watch(struct mig_context *context);

#endif
