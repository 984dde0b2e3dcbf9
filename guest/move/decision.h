/*
 * Going back or forwards, decided once. Whoever decides has other ends to keep in step, so the guest does not refuse
 * because a thread of it is in a long verb (the registration of much memory): it takes the decision over, and carries it
 * out when the verb has returned. All of it belongs to the control thread.
 */
#ifndef MIGRRDMA_MOVE_DECISION_H
#define MIGRRDMA_MOVE_DECISION_H

#include "wire/control.h"

enum mig_decision {
	MIG_DECISION_NONE,
	MIG_DECISION_UNDO,
	MIG_DECISION_RESUME,
};

/*
 * 0: carried out. EINPROGRESS: taken over, and mig_decision_carry_out is to be called until none is open. EBUSY: the other
 * one is open. Else the errno of mig_undo or mig_resume, and nothing is open.
 */
int mig_decide(enum mig_decision decision, struct mig_qp_name *which);

/* The one that is taken over and not carried out yet. */
enum mig_decision mig_decision_open(void);

/* In the child of a fork: it was the parent's. */
void mig_decision_after_fork(void);

/* Waits that long for the verbs under way; likewise. 0 if none is open. */
int mig_decision_carry_out(int timeout_ms, struct mig_qp_name *which);

#endif
