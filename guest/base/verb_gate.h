/*
 * The verbs that make, change and end objects run together; the control thread runs alone.
 *
 * A verb enters with MIG_VERB and leaves at the end of its scope. While the world is stopped it waits: for
 * microseconds during a quiesce, for as long as the process is away while it is parked. The verbs that a
 * callback makes inside the control thread's own work (an allocator's hook) go through.
 */
#ifndef MIGRRDMA_WORLD_H
#define MIGRRDMA_WORLD_H

void mig_world_enter(void);
void mig_world_leave(const int *unused);

/* Waits for the verbs under way; ETIMEDOUT when one takes longer. Only the control thread stops the world. */
int mig_world_stop(int timeout_ms);
void mig_world_go(void);

void mig_world_after_fork(void);

#define MIG_VERB                                                                                           \
	__attribute__((cleanup(mig_world_leave), unused)) const int in_world = (mig_world_enter(), 0)

#endif
