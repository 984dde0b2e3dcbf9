#include "move/places.h"

#include <errno.h>

#include "base/log.h"
#include "base/section.h"
#include "base/verb_gate.h"
#include "move/arriving.h"
#include "objects/ah.h"
#include "objects/qp.h"
#include "path/hold.h"
#include "path/poll.h"
#include "shadow/cq.h"
#include "shadow/places.h"
#include "shadow/process.h"
#include "shadow/xrcd.h"

static struct mig_arriving arriving;

/* At a time; and in all, as what has moved once is remembered for as long as the process lives. */
#define MAX_ARRIVING (1u << 12)
#define MAX_PLACES (1u << 16)

static struct mig_places *ready;

int mig_places_prepare(const struct mig_place_record *records, uint32_t count, int more)
{
	int error = mig_places && mig_places->count > MAX_PLACES - MAX_ARRIVING ? E2BIG : 0;
	int parked = mig.state >= MIG_STATE_PARKED;

	if (!error)
		error = mig_arriving_add(&arriving, records, count, sizeof(*records), MAX_ARRIVING);
	if (!error && more)
		return 0;
	/* Nothing has moved that this process has ever sent to. */
	if (!error && !arriving.count) {
		mig_places_let_go();
		return 0;
	}
	struct mig_places *made = error ? NULL : mig_places_with(mig_places, arriving.records, arriving.count);
	mig_arriving_forget(&arriving);
	if (!error && !made)
		error = ENOMEM;
	if (!error && !parked)
		error = mig_verb_gate_close(1000);
	if (error) {
		mig_places_free(made);
		return error;
	}
	MIG_EACH_CONTEXT(context)
		if (!error)
			error = mig_ah_make_ways(context, made);
	if (!error) {
		mig_places_free(ready);
		ready = made;
	} else {
		mig_places_free(made);
	}
	if (!parked)
		mig_verb_gate_open();
	return error;
}

int mig_places_are_ready(void)
{
	return ready != NULL;
}

/*
 * What has arrived is from where the list has said so far. Of a process that was parked it has been taken long since; what its
 * new queues hold is from later.
 */
static void collect_by_the_list(struct mig_context *context)
{
	MIG_EACH_OF(context, qps, qp, mig_qp)
		if (mig_places && mig_is_datagram(qp) && mig_cq_collect_shared(mig_recv_cq(qp)))
			mig_log(MIG_LOG_WARN, "QP 0x%x: datagrams that nobody has polled may not say from whom they are", qp->ibv.qp_num);
}

void mig_places_take_up(void)
{
	struct mig_places *old = mig_places;

	if (!ready)
		return;
	MIG_EACH_CONTEXT(context)
		collect_by_the_list(context);
	/* Address handles that were made since. Without memory for a way its datagrams are lost, as on any network. */
	MIG_EACH_CONTEXT(context)
		mig_ah_make_ways(context, ready);
	MIG_SET_GATE(mig_places, ready);
	ready = NULL;
	MIG_EACH_CONTEXT(context) {
		if (!context->datagram_qps)
			continue;
		mig_look_at_completions(context, MIG_TRANSLATE_DATAGRAMS);
		MIG_EACH_OF(context, qps, qp, mig_qp)
			if (mig_is_datagram(qp))
				mig_qp_set_translation(qp);
	}
	mig_synchronize();
	mig_places_free(old);
}

void mig_places_let_go(void)
{
	mig_arriving_forget(&arriving);
	mig_places_free(ready);
	ready = NULL;
}
