#include "move/decision.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/verb_gate.h"
#include "move/exchange.h"

static enum mig_decision open_decision;

enum mig_decision mig_decision_open(void)
{
	return open_decision;
}

void mig_decision_after_fork(void)
{
	open_decision = MIG_DECISION_NONE;
}

int mig_decision_carry_out(int timeout_ms, struct mig_qp_name *which)
{
	enum mig_decision decision = open_decision;

	if (decision == MIG_DECISION_NONE)
		return 0;
	/* Of a parked process it is closed already. */
	if (mig_verb_gate_close(timeout_ms))
		return EINPROGRESS;
	open_decision = MIG_DECISION_NONE;
	int error = decision == MIG_DECISION_UNDO ? mig_undo() : mig_resume(which);
	if (error)
		mig_log(MIG_LOG_ERROR, "%s: %s", decision == MIG_DECISION_UNDO ? "undo" : "resume", strerror(error));
	return error;
}

int mig_decide(enum mig_decision decision, struct mig_qp_name *which)
{
	if (open_decision != MIG_DECISION_NONE && open_decision != decision)
		return EBUSY;
	open_decision = decision;
	return mig_decision_carry_out(1000, which);
}
