#include "move/park.h"

#include <errno.h>

#include "base/section.h"
#include "base/verb_gate.h"
#include "move/dead.h"
#include "objects/async_event.h"
#include "objects/channel.h"
#include "objects/kinds.h"
#include "shadow/process.h"

int mig_park(struct mig_qp_name *which)
{
	int error = mig_verb_gate_close(1000);

	if (error)
		return error;
	/* Made since it was asked for the inventory: from here on nothing is made. */
	if (mig.reasons) {
		mig_verb_gate_open();
		return ENOTSUP;
	}
	MIG_EACH_CONTEXT(context) {
		MIG_SET_GATE(context->parked, 1);
		mig_kinds_close(context);
	}
	mig_hold_dead();
	mig_synchronize();
	/* From here on receives are only recorded, and nobody polls: what is in the queues now is the rest. */
	MIG_EACH_CONTEXT(context) {
		int failed = mig_kinds_park(context);

		error = error ? error : failed;
	}
	if (!error)
		error = mig_settle_dead(which);
	/* Also those of what a dead QP has just flushed. */
	MIG_EACH_CONTEXT(context)
		mig_channels_take_events(context);
	MIG_EACH_CONTEXT(context)
		if (!error)
			error = mig_context_take_events(context);
	mig.state = MIG_STATE_PARKED;
	return error;
}

int mig_unpark(struct mig_qp_name *which)
{
	int error = 0;

	MIG_EACH_CONTEXT(context) {
		if (!context->parked)
			continue;
		MIG_SET_GATE(context->parked, 0);
		/* Who asks for an event from here on asks the device; who asked before has left a note by now. */
		mig_synchronize();
		int failed = mig_kinds_unpark(context, which);

		error = error ? error : failed;
	}
	return error;
}
