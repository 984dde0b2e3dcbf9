/*
 * The verbs that make, change and end objects run together; the control thread runs alone.
 *
 * A verb enters with MIG_VERB and leaves at the end of its scope. While the gate is closed it waits: for
 * microseconds during a quiesce, for as long as the process is away while it is parked. What it is called and since
 * when it is there stands beside the thread's word (section.h), for who looks from outside. The verbs that a
 * callback makes inside the control thread's own work (an allocator's hook) go through.
 */
#ifndef MIGRRDMA_VERB_GATE_H
#define MIGRRDMA_VERB_GATE_H

void mig_verb_gate_enter(const char *verb);
void mig_verb_gate_leave(const int *unused);

/* Waits for the verbs under way; ETIMEDOUT when one takes longer. Only the control thread closes it. */
int mig_verb_gate_close(int timeout_ms);
void mig_verb_gate_open(void);

/* Whether this thread is the control thread, which has closed it. */
int mig_verb_gate_is_ours(void);

void mig_verb_gate_after_fork(void);

/* In a function that is called like the verb, with ibv_ or without; else with the verb's name. */
#define MIG_VERB MIG_VERB_AS(__func__)
#define MIG_VERB_AS(name)                                                                                  \
	__attribute__((cleanup(mig_verb_gate_leave), unused)) const int in_verb = (mig_verb_gate_enter(name), 0)

#endif
