#include "move/alone.h"

#include <string.h>

#include "base/log.h"
#include "base/verb_gate.h"
#include "move/connect.h"
#include "move/decision.h"
#include "shadow/process.h"

static uint32_t allowed_s;
/* Counted in the control thread's naps and not by a clock, which may jump when a process is moved. */
static uint64_t silent_ms;

void mig_alone_allow(uint32_t seconds)
{
	allowed_s = seconds;
	silent_ms = 0;
}

void mig_alone_heard(void)
{
	silent_ms = 0;
}

/*
 * In the one direction that loses nothing: forwards once everything is prepared, as the peer may be running at its
 * new place, and else backwards. Where the peer is not, the device reports an error to the application.
 */
static void go_on(void)
{
	struct mig_qp_name which;

	if (mig_verb_gate_close(1000))
		return; /* a verb takes long: tried again */
	int forwards = mig.state == MIG_STATE_QUIESCED && mig_is_prepared();
	int error = mig_decide(forwards ? MIG_DECISION_RESUME : MIG_DECISION_UNDO, &which);
	mig_log(error ? MIG_LOG_ERROR : MIG_LOG_WARN, "nothing heard from an agent: going on with the %s connections%s%s",
		forwards ? "new" : "old", error ? ": " : "", error ? strerror(error) : "");
	mig_verb_gate_open();
}

void mig_alone_passed(uint32_t milliseconds, int connected)
{
	struct mig_qp_name which;

	/* What an agent has decided stays decided. */
	mig_decision_carry_out(connected ? 0 : 1000, &which);
	if (mig_decision_open() != MIG_DECISION_NONE)
		return;
	silent_ms += milliseconds;
	switch (mig.state) {
	case MIG_STATE_QUIESCING:
		/* Nobody will hear that it has drained: whoever asked for it has failed. */
		if (!connected)
			go_on();
		return;
	case MIG_STATE_QUIESCED:
		if (allowed_s ? silent_ms >= allowed_s * 1000ull : !connected)
			go_on();
		return;
	default:
		/* Running, nothing is owed. Parked, only an agent can know whether the process has been dumped. */
		return;
	}
}
