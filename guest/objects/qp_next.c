/* Queue pairs as a kind that is moved: kind.h. */
#include <errno.h>
#include <string.h>

#include "base/keymap.h"
#include "base/section.h"
#include "objects/kinds.h"
#include "objects/multicast.h"
#include "objects/qp.h"
#include "objects/qp_options.h"
#include "path/hold.h"
#include "path/recv.h"
#include "real/real.h"
#include "shadow/cq.h"
#include "shadow/find.h"
#include "shadow/pd.h"
#include "shadow/process.h"
#include "shadow/srq.h"

int mig_qp_to_init(struct mig_context *context, struct mig_qp *qp)
{
	struct ibv_qp_attr attr = qp->attr;
	const struct mig_gid_map *gid = mig_next_gid(context, attr.ah_attr.port_num, attr.ah_attr.grh.sgid_index);

	mig_qp_set_ece_again(qp);
	if (!qp->masks[IBV_QPS_INIT])
		return 0;
	attr.qp_state = IBV_QPS_INIT;
	attr.qp_access_flags |= mig_extra_access;
	for (int i = 0; !gid && i < context->next_gid_count; i++)
		if (mig_is_datagram(qp) && context->next_gids[i].port == attr.port_num)
			gid = &context->next_gids[i];
	if (gid)
		attr.port_num = (uint8_t)gid->new_port;
	return mig_real()->ibv_modify_qp(qp->next, &attr, qp->masks[IBV_QPS_INIT]);
}

void mig_qp_give_up(struct mig_context *context, struct mig_qp *qp)
{
	if (qp->next) {
		mig_lock(&context->lock);
		if (!context->next && mig_qp_by_pqpn(context, qp->next->qp_num) == qp) {
			mig_qpn_set(context, qp->next->qp_num, NULL);
			/* It is found at one look by this one again. */
			mig_qpn_set(context, qp->real->qp_num, qp);
		}
		mig_unlock(&context->lock);
		mig_real()->ibv_destroy_qp(qp->next);
	}
	qp->next = NULL;
	__atomic_store_n(&qp->told_last, 0, __ATOMIC_RELAXED);
	mig_keymap_drop(qp->next_rkeys);
	mig_keymap_drop(qp->next_srqns);
	qp->next_rkeys = qp->next_srqns = NULL;
	qp->next_dest_pqpn = 0;
	qp->reposting = 0;
}

static void qp_exchange_queue(struct mig_context *context, struct mig_qp *qp)
{
	MIG_LOCKED(&qp->send_lock);
	MIG_EXCHANGE(qp->real, qp->next);
	if (qp->next_dest_pqpn) {
		qp->dest_pqpn = qp->next_dest_pqpn;
		qp->psgid = qp->next_psgid;
		qp->pdgid = qp->next_pdgid;
		qp->agreed_sq_psn = qp->next_sq_psn;
		qp->psn_is_agreed = 1;
	}
	qp->next_dest_pqpn = 0;
	qp->parked_at = qp->reposted;
	qp->reposting = 0;
	/* Its new queue is empty. */
	MIG_SET_GATE(qp->send_gate, qp->send_gate | MIG_GATE_FRESH);
	mig_qpn_set(context, qp->real->qp_num, qp);
	qp->ibv.handle = qp->real->handle;
	mig.differs |= qp->real->qp_num != qp->ibv.qp_num;
	if (qp->real->qp_num != qp->ibv.qp_num || qp->dest_pqpn != qp->attr.dest_qp_num)
		mig_look_at_completions(context, MIG_TRANSLATE_NUMBERS);
}

/* Replaces a QP's map of its peer's keys, if there is a new one. The QP is quiesced, so no section reads it. */
static void qp_exchange_map(struct mig_keymap **map, struct mig_keymap **next)
{
	if (!*next)
		return;
	mig_keymap_drop(*map);
	*map = *next;
	*next = NULL;
}

void mig_qp_exchange(struct mig_context *context, struct mig_qp *qp)
{
	qp_exchange_queue(context, qp);
	qp_exchange_map(&qp->rkeys, &qp->next_rkeys);
	qp_exchange_map(&qp->srqns, &qp->next_srqns);
}

static struct mig_qp *qp_of(struct mig_link *object)
{
	return MIG_CONTAINER(object, struct mig_qp, link);
}

static void qp_count(const struct mig_link *object, struct mig_inventory *inventory)
{
	inventory->qps++;
	inventory->receives += mig_recv_outstanding(MIG_CONTAINER(object, const struct mig_qp, link));
}

/* One that has failed: what it was connected to does not matter any more. */
static int next_to_error(struct mig_qp *qp)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_ERR };

	__atomic_store_n(&qp->told_last, qp->shares, __ATOMIC_RELAXED);
	return mig_real()->ibv_modify_qp(qp->next, &attr, IBV_QP_STATE);
}

/*
 * It is connected to nobody, so it is brought at once to where this one is. Who sends to it by its new number has been told so, and
 * is not before the move is decided; what a group hears meanwhile waits with the other completions.
 */
static int next_takes_datagrams(struct mig_qp *qp)
{
	struct ibv_qp_attr attr = qp->attr;
	int error = 0;

	for (enum ibv_qp_state state = IBV_QPS_RTR; state <= IBV_QPS_RTS && qp->masks[state] && !error; state++) {
		attr.qp_state = state;
		error = mig_real()->ibv_modify_qp(qp->next, &attr, qp->masks[state]);
	}
	attr.qp_state = IBV_QPS_SQD;
	if (!error && qp->ibv.state == IBV_QPS_SQD)
		error = mig_real()->ibv_modify_qp(qp->next, &attr, IBV_QP_STATE);
	return error;
}

static int qp_make(struct mig_context *context, struct mig_link *object)
{
	struct mig_qp *qp = qp_of(object);
	int error;

	qp->next = mig_qp_make_next(qp);
	if (!qp->next)
		return errno;
	error = mig_qpn_reserve(context, qp->next->qp_num);
	if (!error)
		error = mig_qp_to_init(context, qp);
	if (error)
		return error;
	mig_lock(&qp->recv_lock);
	qp->reposted = qp->head;
	error = mig_recv_repost(qp, qp->next, context->next_lkeys, &qp->reposted);
	mig_unlock(&qp->recv_lock);
	if (!error && mig_is_dead(qp))
		error = next_to_error(qp);
	else if (!error && mig_is_datagram(qp))
		error = next_takes_datagrams(qp);
	/* A member is one in whatever state it is. */
	return error ? error : mig_groups_join_again(qp);
}

static void qp_give_up(struct mig_context *context, struct mig_link *object)
{
	mig_qp_give_up(context, qp_of(object));
}

/* Receives that were posted after the context was rebuilt; what comes later yet is for mig_recv_open. */
static int qp_begin_exchange(struct mig_context *context, struct mig_link *object, struct mig_qp_name *which)
{
	struct mig_qp *qp = qp_of(object);

	MIG_LOCKED(&qp->recv_lock);
	int error = mig_recv_repost(qp, qp->next, context->next_lkeys, &qp->reposted);

	if (error)
		*which = (struct mig_qp_name){ context->id, qp->ibv.qp_num };
	return error;
}

static void qp_exchange(struct mig_context *context, struct mig_link *object)
{
	struct mig_qp *qp = qp_of(object);

	mig_qp_exchange(context, qp);
	mig_qp_set_operations(qp);
}

static void qp_end(struct mig_link *object)
{
	struct mig_qp *qp = qp_of(object);

	mig_qp_end_marker(qp);
	mig_real()->ibv_destroy_qp(qp->next);
	qp->next = NULL;
}

static void qp_forget(struct mig_link *object)
{
	qp_of(object)->next = NULL;
	qp_of(object)->marker_ah = NULL;
}

static void qp_close(struct mig_link *object)
{
	mig_recv_close(qp_of(object));
}

static int qp_park(struct mig_link *object)
{
	mig_recv_park(qp_of(object));
	return 0;
}

static int qp_unpark(struct mig_link *object, struct mig_qp_name *which)
{
	struct mig_qp *qp = qp_of(object);
	int error = mig_recv_open(qp);

	qp->settled = 0;

	if (error)
		*which = (struct mig_qp_name){ mig_context(qp->ibv.context)->id, qp->ibv.qp_num };
	return error;
}

const struct mig_kind mig_qp_kind = {
	.name = "queue pair",
	.list = MIG_LIST_OF(qps),
	.count = qp_count,
	.make = qp_make,
	.give_up = qp_give_up,
	.begin_exchange = qp_begin_exchange,
	.exchange = qp_exchange,
	.end = qp_end,
	.forget = qp_forget,
	.close = qp_close,
	.park = qp_park,
	.unpark = qp_unpark,
};
