/*
 * Marks: objects that live and cannot be moved, each with the reason that it gives. A mark is set once an object is there (one
 * that could not be made is no reason) and ends with it; a reason of the process goes with its last mark.
 */
#ifndef MIGRRDMA_SHADOW_MARKS_H
#define MIGRRDMA_SHADOW_MARKS_H

#include "shadow/context.h"

struct mig_mark;

/*
 * The object is there, in this context of ours, and cannot be moved. `why` is a text that stays, and the same one for the same
 * reason. No lock may be held.
 */
void mig_mark(const struct mig_context *context, const void *object, const char *why);

/* Takes back one call of mig_mark while the object goes on; 0 if there was none. */
int mig_unmark(const void *object, const char *why);

/* Why that object cannot be moved, or NULL. */
const char *mig_mark_of(const void *object);

/*
 * An object that is about to be ended: its marks are taken before, since another thread may be given the same address as soon as
 * it is ended. The process counts as marked meanwhile. Afterwards they end, or are the object's again if it could not be
 * ended (`error`).
 */
struct mig_mark *mig_marks_take(const void *object);
void mig_marks_settle(struct mig_mark *taken, int error);

/* A context is closed, and whatever was left open in it is ended. */
void mig_marks_forget(const struct mig_context *context);

/* In the child of a fork, which has none of its parent's objects. */
void mig_marks_after_fork(void);

#endif
