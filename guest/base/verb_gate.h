/*
 * The verbs that make, change and end objects run together; the control thread runs alone.
 *
 * A verb enters with MIG_VERB and leaves at the end of its scope. While the gate is closed it waits: for
 * microseconds during a quiesce, for as long as the process is away while it is parked. The verbs that a
 * callback makes inside the control thread's own work (an allocator's hook) go through.
 */
#ifndef MIGRRDMA_VERB_GATE_H
#define MIGRRDMA_VERB_GATE_H

void mig_verb_gate_enter(void);
void mig_verb_gate_leave(const int *unused);

/* Waits for the verbs under way; ETIMEDOUT when one takes longer. Only the control thread closes it. */
int mig_verb_gate_close(int timeout_ms);
void mig_verb_gate_open(void);

void mig_verb_gate_after_fork(void);

#define MIG_VERB                                                                                           \
	__attribute__((cleanup(mig_verb_gate_leave), unused)) const int in_verb = (mig_verb_gate_enter(), 0)

#endif
