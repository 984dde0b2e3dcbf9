/*
 * Going on: with the next objects in place of the real ones, which are ended or, of a restored process, forgotten; or
 * with those that there were.
 */
#include "move/rebuild.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/relay_fd.h"
#include "base/keymap.h"
#include "move/placeholders.h"
#include "objects/object.h"
#include "base/verb_gate.h"

/* Old real objects, still alive, from the last made to the first. */
static void destroy_old(struct mig_context *context, struct ibv_context *old)
{
	const struct mig_real *real = mig_real();

	/* The exchange has left the old ones in `next`. */
	MIG_EACH_OF(context, qps, qp, mig_qp)
		real->ibv_destroy_qp(qp->next);
	MIG_EACH_OF(context, cqs, cq, mig_cq)
		real->ibv_destroy_cq(cq->next);
	MIG_EACH_OF(context, mrs, mr, mig_mr)
		real->ibv_dereg_mr(mr->next);
	MIG_EACH_OF(context, pds, pd, mig_pd)
		real->ibv_dealloc_pd(pd->next);
	MIG_EACH_OF(context, channels, channel, mig_channel)
		real->ibv_destroy_comp_channel(channel->next);
	real->ibv_close_device(old);
}

/*
 * Old real objects of a process that was restored: the kernel does not know them, and their queues are
 * placeholders. Their structures stay behind in the heap; descriptors and mappings go.
 */
static void forget_old(struct mig_context *context, struct ibv_context *old)
{
	MIG_EACH_OF(context, mrs, mr, mig_mr)
		if (mig_real()->dofork_range && !(mr->access & IBV_ACCESS_ON_DEMAND))
			mig_real()->dofork_range(mr->ibv.addr, mr->ibv.length);
	MIG_EACH_OF(context, channels, channel, mig_channel)
		close(channel->next->fd);
	close(old->async_fd);
	close(old->cmd_fd);
}

#define EXCHANGE(a, b)                                                                                     \
	do {                                                                                               \
		__typeof__(a) kept_ = (a);                                                                 \
		(a) = (b);                                                                                 \
		(b) = kept_;                                                                               \
	} while (0)

static void exchange_qp(struct mig_context *context, struct mig_qp *qp)
{
	MIG_LOCKED(&qp->send_lock);
	EXCHANGE(qp->real, qp->next);
	if (qp->next_dest_pqpn) {
		qp->dest_pqpn = qp->next_dest_pqpn;
		qp->psgid = qp->next_psgid;
		qp->pdgid = qp->next_pdgid;
	}
	qp->next_dest_pqpn = 0;
	qp->parked_at = qp->reposted;
	/* Its new queue is empty. */
	MIG_SET_GATE(qp->send_gate, qp->send_gate | MIG_GATE_FRESH);
	mig_qpn_set(context, qp->real->qp_num, qp);
	qp->ibv.handle = qp->real->handle;
	if (qp->real->qp_num != qp->ibv.qp_num || qp->dest_pqpn != qp->attr.dest_qp_num)
		MIG_SET_GATE(context->translate, 1);
}

/* Replaces a QP's map of its peer's keys. The QP is quiesced, so no section reads it. */
static void exchange_rkeys(struct mig_qp *qp)
{
	if (!qp->next_rkeys)
		return;
	mig_drop_map(qp->rkeys);
	qp->rkeys = qp->next_rkeys;
	qp->next_rkeys = NULL;
}

/* Receives that were posted after the context was rebuilt; what comes later yet is for mig_recv_open. */
static int repost_rest(struct mig_qp *qp, const struct mig_keymap *lkeys)
{
	MIG_LOCKED(&qp->recv_lock);
	return mig_recv_repost(qp, qp->next, lkeys, &qp->reposted);
}

static int exchange_context(struct mig_context *context, struct mig_qp_name *which)
{
	struct ibv_context *old = context->real;
	struct mig_keymap *old_keys = context->lkeys;
	int error = mig_eventfd_exchange(&context->async, context->next->async_fd);

	MIG_EACH_OF(context, qps, qp, mig_qp) {
		*which = (struct mig_qp_name){ context->id, qp->ibv.qp_num };
		if (!error)
			error = repost_rest(qp, context->next_lkeys);
	}
	MIG_EACH_OF(context, channels, channel, mig_channel)
		if (!error)
			error = mig_eventfd_exchange(&channel->event, channel->next->fd);
	if (error)
		return error;

	/* Nothing below can fail. */
	for (int i = 0; i < MIG_QPN_PAGE; i++)
		if (context->qpns[i])
			memset(context->qpns[i], 0, MIG_QPN_PAGE * sizeof(*context->qpns[i]));
	context->real = context->next;
	context->next = NULL;
	context->lkeys = context->next_lkeys;
	context->next_lkeys = NULL;
	memcpy(context->gids, context->next_gids, sizeof(context->gids));
	context->gid_count = context->next_gid_count;
	MIG_SET_GATE(context->translate, context->lkeys != NULL);
	MIG_EACH_OF(context, channels, channel, mig_channel)
		EXCHANGE(channel->real, channel->next);
	MIG_EACH_OF(context, pds, pd, mig_pd) {
		EXCHANGE(pd->real, pd->next);
		pd->ibv.handle = pd->real->handle;
	}
	MIG_EACH_OF(context, mrs, mr, mig_mr) {
		EXCHANGE(mr->real, mr->next);
		mr->ibv.handle = mr->real->handle;
		if (mr->real->rkey != mr->ibv.rkey)
			MIG_SET_GATE(context->translate, 1);
	}
	MIG_EACH_OF(context, cqs, cq, mig_cq) {
		EXCHANGE(cq->real, cq->next);
		cq->poll = cq->real->context->ops.poll_cq;
		cq->ibv.handle = cq->real->handle;
	}
	MIG_EACH_OF(context, qps, qp, mig_qp) {
		exchange_qp(context, qp);
		exchange_rkeys(qp);
		mig_qp_set_operations(qp);
	}
	context->verbs.context.cmd_fd = context->real->cmd_fd;
	snprintf(context->device->real_name, sizeof(context->device->real_name), "%s", context->next_device);

	if (context->left_behind)
		forget_old(context, old);
	else
		destroy_old(context, old);
	context->left_behind = 0;
	MIG_EACH_OF(context, channels, channel, mig_channel)
		channel->next = NULL;
	MIG_EACH_OF(context, pds, pd, mig_pd)
		pd->next = NULL;
	MIG_EACH_OF(context, mrs, mr, mig_mr)
		mr->next = NULL;
	MIG_EACH_OF(context, cqs, cq, mig_cq)
		cq->next = NULL;
	MIG_EACH_OF(context, qps, qp, mig_qp)
		qp->next = NULL;
	mig_keymap_free(old_keys);
	return 0;
}

/* A peer has moved: this QP continues as another one of the same context. */
static int exchange_partner(struct mig_context *context, struct mig_qp *qp)
{
	struct ibv_qp *old = qp->real;
	int error;

	mig_recv_close(qp);
	mig_synchronize();
	/* The peer had drained before it moved: what the old QP has received is in the queue by now. */
	error = mig_cq_collect(mig_cq(qp->ibv.recv_cq), 0);
	/* The kernel forgets what the application has not read yet about a QP that ends. */
	if (!error)
		error = mig_context_take_events(context);
	if (error)
		return error;
	mig_lock(&qp->recv_lock);
	qp->reposted = __atomic_load_n(&qp->head, __ATOMIC_ACQUIRE);
	error = mig_recv_repost(qp, qp->next, context->lkeys, &qp->reposted);
	if (!error) {
		exchange_qp(context, qp);
		exchange_rkeys(qp);
		qp->post_recv = qp->real->context->ops.post_recv;
	}
	/* Of a parked process the rest follows with mig_recv_open. */
	qp->recv_closed = qp->recv_parked;
	mig_unlock(&qp->recv_lock);
	if (error)
		return error;
	mig_qp_set_operations(qp);
	qp->next = NULL;
	if (old->qp_num != qp->real->qp_num && mig_qp_by_pqpn(context, old->qp_num) == qp)
		mig_qpn_set(context, old->qp_num, NULL);
	mig_real()->ibv_destroy_qp(old);
	return 0;
}

int mig_resume(struct mig_qp_name *which)
{
	int error = mig_world_stop(1000), left_behind = 0;

	if (error)
		return error;
	MIG_EACH_CONTEXT(context) {
		if (context->next) {
			left_behind |= context->left_behind;
			error = error ? error : exchange_context(context, which);
			continue;
		}
		MIG_EACH_OF(context, qps, qp, mig_qp) {
			if (error || !qp->next)
				continue;
			*which = (struct mig_qp_name){ context->id, qp->ibv.qp_num };
			/* There may be sends on the old one. */
			error = qp->quiesced ? exchange_partner(context, qp) : EBUSY;
		}
	}
	if (error) {
		if (mig.state < MIG_STATE_PARKED)
			mig_world_go();
		return error;
	}
	if (left_behind)
		mig_remove_placeholders();
	error = mig_unpark(which);
	mig_quiesce_end();
	mig_world_go();
	return error;
}

int mig_abort(void)
{
	struct mig_qp_name which;
	int error = mig_world_stop(1000);

	if (error)
		return error;
	MIG_EACH_CONTEXT(context)
		if (context->parked && !mig_is_live(context))
			return EXDEV;
	MIG_EACH_CONTEXT(context)
		mig_give_up(context);
	error = mig_unpark(&which);
	mig_quiesce_end();
	mig_world_go();
	return error;
}
