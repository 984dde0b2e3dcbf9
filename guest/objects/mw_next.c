/*
 * Memory windows as a kind that is moved: kind.h. What a window opens it opens again before the peers go on: one of type 1
 * with the help of a queue pair that is connected with itself, one of type 2 with its own, as soon as that one may send.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "objects/kinds.h"
#include "objects/mw.h"
#include "path/hold.h"
#include "real/doorbell.h"
#include "real/real.h"
#include "shadow/cq.h"
#include "shadow/find.h"
#include "shadow/mr.h"
#include "shadow/pd.h"
#include "shadow/qp.h"
#include "shadow/xrcd.h"

/* A bind is a matter of microseconds; this is for a device that does not answer. */
#define MOST_NAPS 5000

/* What has failed to bind before would fail again: its queue pair is broken, and nobody was told of the window. */
static int was_refused(const struct mig_mw *mw)
{
	return mw->is_unsure || (mw->qp && __atomic_load_n(&mw->qp->broken, __ATOMIC_RELAXED));
}

static int await_bind(struct ibv_cq *cq)
{
	const struct timespec nap = { 0, 200000 };
	struct ibv_wc wc;
	int naps = 0, got;

	while (!(got = cq->context->ops.poll_cq(cq, 1, &wc)) && naps++ < MOST_NAPS)
		nanosleep(&nap, NULL);
	return got == 1 && wc.status == IBV_WC_SUCCESS ? 0 : EIO;
}

static int connect_with_itself(struct mig_context *context, struct ibv_qp *qp)
{
	const struct mig_real *real = mig_real();
	const struct mig_gid_map *gid = context->next_gid_count ? &context->next_gids[0] : NULL;
	uint8_t port = gid ? (uint8_t)gid->new_port : 1, index = gid ? (uint8_t)gid->new_index : 0;
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = port };
	int error = real->ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);

	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_256, .dest_qp_num = qp->qp_num,
				     .ah_attr = { .is_global = 1, .port_num = port, .grh = { .sgid_index = index, .hop_limit = 1 } } };
	if (!error && real->ibv_query_gid(qp->context, port, index, &attr.ah_attr.grh.dgid))
		error = EIO;
	if (!error)
		error = real->ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
							       IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7 };
	if (!error)
		error = real->ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
							       IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
	return error;
}

static struct ibv_mw_bind_info again(const struct mig_mw *mw)
{
	return (struct ibv_mw_bind_info){ mw->mr->next, mw->addr, mw->length, mw->access };
}

/* Which of its 256 numbers the device gives next is the device's affair. */
static int bind_type_1(struct mig_context *context, struct mig_mw *mw)
{
	const struct mig_real *real = mig_real();
	struct ibv_pd *pd = mig_pd(mw->ibv.pd)->next;
	struct ibv_cq *cq = real->ibv_create_cq(context->next, 4, NULL, NULL, 0);
	struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = { 2, 1, 1, 1, 0 } };
	struct ibv_qp *qp = cq ? real->ibv_create_qp(pd, &init) : NULL;
	struct ibv_mw_bind bind = { .send_flags = IBV_SEND_SIGNALED, .bind_info = again(mw) };
	int error = qp ? connect_with_itself(context, qp) : errno;

	if (!error)
		error = mig_bind_and_ring(qp, mw->next, &bind);
	if (!error)
		error = await_bind(cq);
	if (qp)
		real->ibv_destroy_qp(qp);
	if (cq)
		real->ibv_destroy_cq(cq);
	return error;
}

static struct mig_mw *mw_of(struct mig_link *object)
{
	return MIG_CONTAINER(object, struct mig_mw, link);
}

/* Peers are told of every number that it may get. */
static void mw_count(const struct mig_link *object, struct mig_inventory *inventory)
{
	inventory->keys += MIG_CONTAINER(object, const struct mig_mw, link)->has_ended ? 0 : MIG_MW_VARIANTS;
}

/*
 * Of one that stays closed the device takes for its present number what it has given itself, which the next bind must name. One of
 * type 2 that is opened again is given the application's by who binds it: mig_mw_bind_again.
 */
static uint32_t next_variant(const struct mig_mw *mw)
{
	int is_opened_again = mw->ibv.type == IBV_MW_TYPE_2 && mw->mr && mw->qp && !mig_is_dead(mw->qp);

	return is_opened_again ? 0 : (mw->next->rkey - mw->rkey) & 0xff;
}

static int mw_make(struct mig_context *context, struct mig_link *object)
{
	struct mig_mw *mw = mw_of(object);
	int error = 0;

	if (mw->has_ended)
		return 0;
	if (!context->next->ops.alloc_mw)
		return EOPNOTSUPP;
	mw->next = context->next->ops.alloc_mw(mig_pd(mw->ibv.pd)->next, mw->ibv.type);
	if (!mw->next)
		return errno;
	if (mw->mr && mw->ibv.type == IBV_MW_TYPE_1 && (error = bind_type_1(context, mw)) && was_refused(mw))
		error = 0;
	mw->next_variant = next_variant(mw);
	return error;
}

/* A refused bind leaves an unreliable QP in SQE; a successor that belongs there is brought there later (dead.c). */
static int leave_sqe(struct mig_qp *qp)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RTS };

	return qp->ibv.qp_type == IBV_QPT_UC ? mig_real()->ibv_modify_qp(qp->next, &attr, IBV_QP_STATE) : EIO;
}

int mig_mw_bind_again(struct mig_context *context, struct mig_qp *qp)
{
	MIG_EACH_OF(context, mws, mw, mig_mw) {
		if (mw->has_ended || !mw->next || !mw->mr || mw->qp != qp || mw->ibv.type != IBV_MW_TYPE_2)
			continue;
		struct ibv_send_wr *bad, wr = { .opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED };
		uint32_t rkey = mw->next->rkey;

		wr.bind_mw.mw = mw->next;
		wr.bind_mw.rkey = (rkey & ~0xffu) | (mw->rkey & 0xff);
		wr.bind_mw.bind_info = again(mw);
		int error = mig_post_and_ring(qp->next, &wr, &bad);
		if (!error)
			error = await_bind(mig_send_cq(qp)->next);
		if (error && was_refused(mw) && !leave_sqe(qp))
			continue;
		if (error)
			return error;
		mw->next->rkey = wr.bind_mw.rkey;
	}
	return 0;
}

static void mw_end(struct mig_link *object)
{
	struct mig_mw *mw = mw_of(object);

	if (mw->next)
		mw->next->context->ops.dealloc_mw(mw->next);
	mw->next = NULL;
}

static void mw_give_up(struct mig_context *context, struct mig_link *object)
{
	(void)context;
	mw_end(object);
}

/* The table by the device's numbers is made anew, with the first that comes to be exchanged. */
static void mw_exchange(struct mig_context *context, struct mig_link *object)
{
	struct mig_mw *mw = mw_of(object);

	if (context->mws.next == object)
		memset(context->mw_table->by_pindex, 0, sizeof(context->mw_table->by_pindex));
	if (mw->has_ended)
		return;
	MIG_EXCHANGE(mw->real, mw->next);
	mw->ibv.handle = mw->real->handle;
	mw->pindex = mw->real->rkey >> 8;
	mw->variant = mw->next_variant;
	mw->has_differed |= mw->pindex != mw->index || mw->variant;
	mig_mw_list_physical(context, mw);
}

static void mw_forget(struct mig_link *object)
{
	mw_of(object)->next = NULL;
}

const struct mig_kind mig_mw_kind = {
	.name = "memory window",
	.list = MIG_LIST_OF(mws),
	.count = mw_count,
	.make = mw_make,
	.give_up = mw_give_up,
	.exchange = mw_exchange,
	.end = mw_end,
	.forget = mw_forget,
};
