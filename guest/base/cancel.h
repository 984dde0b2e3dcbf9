/*
 * Code that a cancelled thread must not leave in the middle: where a lock is held, or counted, across a system call.
 *
 * pthread_cancel() ends a thread in the next call that is a cancellation point (a device's command that is a write(2),
 * an open log file), and no cleanup of ours would run. Not for the data path: there the thread's end clears up what a
 * section has left (section.c). Nor for what waits: an application that cancels a thread in a wait relies on it.
 */
#ifndef MIGRRDMA_CANCEL_H
#define MIGRRDMA_CANCEL_H

/* The state before, for mig_cancel_restore. Nothing in a process without a threads library. */
int mig_cancel_disable(void);
void mig_cancel_restore(const int *state);

/* Until the end of the scope; what was asked for meanwhile takes effect at the next cancellation point after it. */
#define MIG_UNCANCELLED                                                                                    \
	__attribute__((cleanup(mig_cancel_restore), unused)) const int cancel_state = mig_cancel_disable()

#endif
