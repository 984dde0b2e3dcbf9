#include "move/exchange.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/keymap.h"
#include "base/section.h"
#include "base/verb_gate.h"
#include "move/park.h"
#include "move/placeholders.h"
#include "move/places.h"
#include "move/quiesce.h"
#include "move/rebuild.h"
#include "objects/async_event.h"
#include "objects/kinds.h"
#include "objects/operations.h"
#include "objects/qp.h"
#include "objects/xrcd.h"
#include "path/hold.h"
#include "path/poll.h"
#include "path/recv.h"
#include "real/gone.h"
#include "real/real.h"
#include "shadow/cq.h"
#include "shadow/find.h"
#include "shadow/process.h"
#include "shadow/xrcd.h"

/*
 * Of a process that was restored the kernel does not know the old objects, so the device's library is told that their device is
 * gone. Where it cannot be told, and where somebody may still come for one of them, their structures stay behind in the heap. The
 * context stays there in any case: mlx5's library takes a command that fails when a context is closed for a mistake of its own, and
 * may end the process. Descriptors go here, and mappings with the placeholders.
 */
static void end_left_behind(struct mig_context *context, struct ibv_context *old)
{
	struct mig_gone gone;

	if (!__atomic_load_n(&context->in_events, __ATOMIC_ACQUIRE) && !mig_gone_begin(&gone, old)) {
		mig_kinds_end(context);
		mig_gone_end(&gone);
	} else {
		mig_kinds_forget(context);
	}
	close(old->async_fd);
	close(old->cmd_fd);
}

/* The old context, with its objects. */
static void end_old(struct mig_context *context, struct ibv_context *old)
{
	if (context->left_behind) {
		end_left_behind(context, old);
	} else {
		mig_kinds_end(context);
		mig_real()->ibv_close_device(old);
	}
	context->left_behind = 0;
	context->purges = 0;
}

static int exchange_context(struct mig_context *context, struct mig_qp_name *which)
{
	struct ibv_context *old = context->real;
	struct mig_keymap *old_keys = context->lkeys, *old_spent = context->spent_rkeys;
	int error = mig_relay_fd_exchange(&context->async, context->next->async_fd);

	if (!error)
		error = mig_kinds_begin_exchange(context, which);
	if (error)
		return error;

	/* Nothing below can fail. */
	mig_qpn_clear(context);
	context->real = context->next;
	context->next = NULL;
	mig_offer_operations(context);
	context->lkeys = context->next_lkeys;
	context->next_lkeys = NULL;
	context->spent_rkeys = context->next_spent_rkeys;
	context->next_spent_rkeys = NULL;
	memcpy(context->gids, context->next_gids, sizeof(context->gids));
	context->gid_count = context->next_gid_count;
	/* Also of regions that have ended: a number that was theirs must not be given again. */
	MIG_SET_GATE(context->translate, (context->lkeys || context->spent_rkeys ? MIG_TRANSLATE_NUMBERS : 0) |
						 (context->has_windows ? MIG_TRANSLATE_WINDOWS : 0) |
						 (context->datagram_qps ? MIG_TRANSLATE_DATAGRAMS : 0));
	context->exchanged = 1;
	mig_kinds_exchange(context);
	context->verbs.context.cmd_fd = context->real->cmd_fd;
	snprintf(context->device->real_name, sizeof(context->device->real_name), "%s", context->next_device);
	end_old(context, old);
	mig_keymap_free(old_keys);
	mig_keymap_free(old_spent);
	/* What queue pairs that had failed have said again, before anybody is told that there is something to be read. */
	mig_context_take_events(context);
	return 0;
}

/*
 * Without acknowledgements something may still be on its way to the old QP. It must not take a receive that is posted to the
 * new one as well: what comes now is lost, and what has come just before is counted, unless the device drops it with the QP.
 */
static int stop_receiving(struct mig_qp *qp)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RESET };
	int error = mig_real()->ibv_modify_qp(qp->real, &attr, IBV_QP_STATE);

	return error ? error : mig_cq_collect(mig_recv_cq(qp), 0);
}

/* A peer has moved: this QP continues as another one of the same context. */
static int exchange_partner(struct mig_context *context, struct mig_qp *qp)
{
	struct ibv_qp *old = qp->real;
	int error;

	mig_recv_close(qp);
	mig_synchronize();
	/* What its messages complete on is held by nobody: from here on the number of its successor is looked at there, too. */
	if (mig_is_target(qp))
		mig_look_at_completions(context, MIG_TRANSLATE_NUMBERS);
	/* The peer had drained before it moved: what the old QP has received is in the queue by now. */
	error = mig_is_target(qp) ? mig_xrcd_collect(qp->xrcd) : mig_cq_collect(mig_recv_cq(qp), 0);
	if (!error && qp->ibv.qp_type == IBV_QPT_UC)
		error = stop_receiving(qp);
	/* The kernel forgets what the application has not read yet about a QP that ends. */
	if (!error)
		error = mig_context_take_events(context);
	if (error)
		return error;
	mig_lock(&qp->recv_lock);
	/* Once: what has failed halfway is repeated, and goes on where it stopped. */
	if (!qp->reposting)
		qp->reposted = __atomic_load_n(&qp->head, __ATOMIC_ACQUIRE);
	qp->reposting = 1;
	error = mig_recv_repost(qp, qp->next, context->lkeys, &qp->reposted);
	if (!error) {
		mig_qp_exchange(context, qp);
		mig_qp_set_operations(qp);
	}
	/* Of a parked process the rest follows with mig_recv_open. */
	qp->recv_closed = qp->recv_parked;
	mig_unlock(&qp->recv_lock);
	if (error)
		return error;
	qp->next = NULL;
	if (old->qp_num != qp->real->qp_num && mig_qp_by_pqpn(context, old->qp_num) == qp)
		mig_qpn_set(context, old->qp_num, NULL);
	mig_real()->ibv_destroy_qp(old);
	return 0;
}

int mig_resume(struct mig_qp_name *which)
{
	int error = mig_verb_gate_close(1000), left_behind = 0;

	if (error)
		return error;
	MIG_EACH_CONTEXT(context)
		left_behind |= context->next && context->left_behind;
	/* Before what is ended unmaps its own. */
	if (left_behind)
		mig_note_placeholders();
	MIG_EACH_CONTEXT(context) {
		if (context->next) {
			error = error ? error : exchange_context(context, which);
			continue;
		}
		MIG_EACH_OF(context, qps, qp, mig_qp) {
			if (error || !qp->next)
				continue;
			*which = (struct mig_qp_name){ context->id, qp->ibv.qp_num };
			/* There may be sends on the old one. */
			error = mig_is_held(qp) ? exchange_partner(context, qp) : EBUSY;
		}
	}
	if (error) {
		if (mig.state < MIG_STATE_PARKED)
			mig_verb_gate_open();
		return error;
	}
	if (left_behind)
		mig_remove_placeholders();
	mig_places_take_up();
	error = mig_unpark(which);
	mig_quiesce_end();
	mig_verb_gate_open();
	return error;
}

int mig_undo(void)
{
	struct mig_qp_name which;
	int error = mig_verb_gate_close(1000);

	if (error)
		return error;
	MIG_EACH_CONTEXT(context)
		if (context->parked && !mig_is_live(context))
			return EXDEV;
	mig_places_let_go();
	MIG_EACH_CONTEXT(context)
		mig_give_up(context);
	error = mig_unpark(&which);
	mig_quiesce_end();
	mig_verb_gate_open();
	return error;
}
