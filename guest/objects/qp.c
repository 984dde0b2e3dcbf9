/* Queue pairs: made, changed, looked at, ended. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "real/doorbell.h"
#include "real/export.h"
#include "objects/object.h"
#include "base/verb_gate.h"

int mig_qpn_reserve(struct mig_context *context, uint32_t pqpn)
{
	struct mig_qp ***slot = &context->qpns[(pqpn >> 12) & 0xfff];
	struct mig_qp **page, **none = NULL;

	if (__atomic_load_n(slot, __ATOMIC_ACQUIRE))
		return 0;
	page = calloc(MIG_QPN_PAGE, sizeof(*page));
	if (!page)
		return ENOMEM;
	if (!__atomic_compare_exchange_n(slot, &none, page, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		free(page);
	return 0;
}

void mig_qpn_set(struct mig_context *context, uint32_t pqpn, struct mig_qp *qp)
{
	struct mig_qp **page = context->qpns[(pqpn >> 12) & 0xfff];

	if (page)
		__atomic_store_n(&page[pqpn & 0xfff], qp, __ATOMIC_RELEASE);
}

/* With one place more in the send queue, for the marker; without, if the device has no more. */
static struct ibv_qp *make_with_spare(struct ibv_pd *pd, struct ibv_qp_init_attr *init, uint32_t *extra)
{
	struct ibv_qp_init_attr larger = *init;
	struct ibv_qp *real;

	if (init->cap.max_send_wr) {
		larger.cap.max_send_wr++;
		real = mig_real()->ibv_create_qp(pd, &larger);
		if (real) {
			*extra = 1;
			*init = larger;
			return real;
		}
	}
	*extra = 0;
	return mig_real()->ibv_create_qp(pd, init);
}

struct ibv_qp *mig_qp_make(struct mig_qp *qp, struct ibv_pd *pd, struct ibv_cq *send_cq, struct ibv_cq *recv_cq)
{
	struct ibv_qp_init_attr init = qp->init;

	init.qp_context = qp;
	init.send_cq = send_cq;
	init.recv_cq = recv_cq;
	/* What the application was told is what it relies on. */
	init.cap = qp->cap;
	struct ibv_qp *real = make_with_spare(pd, &init, &qp->extra_send);
	if (real && (init.cap.max_send_wr - qp->extra_send < qp->cap.max_send_wr ||
		     init.cap.max_recv_wr < qp->cap.max_recv_wr || init.cap.max_send_sge < qp->cap.max_send_sge ||
		     init.cap.max_recv_sge < qp->cap.max_recv_sge ||
		     init.cap.max_inline_data < qp->cap.max_inline_data)) {
		mig_real()->ibv_destroy_qp(real);
		errno = EOPNOTSUPP;
		return NULL;
	}
	return real;
}

void mig_qp_set_operations(struct mig_qp *qp)
{
	struct mig_context *context = mig_context(qp->ibv.context);
	uint32_t translate = context->lkeys || qp->rkeys || context->has_windows ? MIG_GATE_TRANSLATE : 0;

	qp->post_send = mig.restored ? mig_post_and_ring : qp->real->context->ops.post_send;
	qp->post_recv = qp->real->context->ops.post_recv;
	mig_send_gate(qp, translate, MIG_GATE_TRANSLATE);
}

/* Why a QP is made by the real library and left to it; NULL: we shadow it. */
static const char *foreign(const struct ibv_qp_init_attr *attr)
{
	if (attr->qp_type != IBV_QPT_RC)
		return attr->qp_type == IBV_QPT_UD ? "a UD QP" : attr->qp_type == IBV_QPT_UC ? "a UC QP" : "a QP of an unusual type";
	if (attr->srq)
		return "a QP with a shared receive queue";
	if (!mig_cq(attr->send_cq) || !mig_cq(attr->recv_cq))
		return "a QP with an extended CQ";
	if (attr->cap.max_send_sge > 256 || attr->cap.max_recv_sge > 256)
		return "a QP with more than 256 scatter entries";
	return NULL;
}

static struct ibv_qp *make_foreign(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
	struct ibv_qp_init_attr theirs = *attr;

	theirs.send_cq = mig_real_cq(attr->send_cq);
	theirs.recv_cq = mig_real_cq(attr->recv_cq);
	struct ibv_qp *qp = mig_real()->ibv_create_qp(mig_real_pd(pd), &theirs);
	if (qp)
		attr->cap = theirs.cap;
	return qp;
}

/* See ask_until_unique in memory.c: another number is asked of the device, not invented. */
static struct ibv_qp *make_until_unique(struct mig_context *context, struct ibv_pd *pd,
					struct ibv_qp_init_attr *init, uint32_t *extra)
{
	struct mig_refused refused = { 0 };
	struct ibv_qp *real = NULL, *other;
	int again = 1, error = 0;

	while (again && !error) {
		struct ibv_qp_init_attr attempt = *init;

		real = make_with_spare(pd, &attempt, extra);
		if (!real) {
			error = errno;
			break;
		}
		mig_lock(&context->lock);
		again = context->translate && mig_numbers_find(&context->vqpns, real->qp_num);
		mig_unlock(&context->lock);
		if (!again)
			*init = attempt;
		else if ((error = mig_refuse(&refused, real)))
			mig_real()->ibv_destroy_qp(real);
	}
	while ((other = mig_refused_next(&refused)))
		mig_real()->ibv_destroy_qp(other);
	if (error)
		errno = error;
	return error ? NULL : real;
}

static struct mig_qp *allocate(void)
{
	void *memory = NULL;

	if (posix_memalign(&memory, MIG_LINE, sizeof(struct mig_qp)))
		return NULL;
	return memset(memory, 0, sizeof(struct mig_qp));
}

struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
	MIG_VERB;
	const char *why = mig_pd(pd) ? foreign(attr) : "";
	if (why) {
		if (*why)
			mig_cannot_migrate("%s", why);
		return make_foreign(pd, attr);
	}

	struct mig_context *context = mig_context(pd->context);
	struct ibv_qp_init_attr theirs = *attr;
	struct mig_qp *qp = allocate();
	int error = ENOMEM;

	if (!qp)
		goto failed;
	theirs.qp_context = qp;
	theirs.send_cq = mig_real_cq(attr->send_cq);
	theirs.recv_cq = mig_real_cq(attr->recv_cq);
	qp->real = make_until_unique(context, mig_real_pd(pd), &theirs, &qp->extra_send);
	if (!qp->real) {
		error = errno;
		goto failed;
	}
	qp->init = *attr;
	qp->cap = theirs.cap;
	qp->cap.max_send_wr -= qp->extra_send;
	qp->kept_end = &qp->kept;
	qp->send_gate = MIG_GATE_FRESH;
	qp->ibv = *qp->real;
	qp->ibv.context = pd->context;
	qp->ibv.qp_context = attr->qp_context;
	qp->ibv.pd = pd;
	qp->ibv.send_cq = attr->send_cq;
	qp->ibv.recv_cq = attr->recv_cq;
	if (mig_recv_init(qp) || mig_qpn_reserve(context, qp->real->qp_num))
		goto failed;
	mig_qp_set_operations(qp);

	mig_lock(&context->lock);
	error = mig_numbers_add(&context->vqpns, qp->ibv.qp_num, qp);
	if (!error) {
		mig_list_add(&context->qps, &qp->link);
		mig_qpn_set(context, qp->real->qp_num, qp);
	}
	mig_unlock(&context->lock);
	if (error)
		goto failed;
	/* What it would send before the park, nobody would wait for. */
	if (context->at_rest) {
		mig_quiesce_one(qp);
		qp->marker = MIG_MARKER_DONE;
	}
	attr->cap = qp->cap;
	return &qp->ibv;

failed:
	if (qp && qp->real)
		mig_real()->ibv_destroy_qp(qp->real);
	free(qp ? qp->ring : NULL);
	free(qp);
	errno = error;
	return NULL;
}

static void merge(struct mig_qp *qp, const struct ibv_qp_attr *attr, int mask)
{
#define MERGE(bit, member)                                                                                 \
	if (mask & (bit))                                                                                  \
		qp->attr.member = attr->member;
	MERGE(IBV_QP_EN_SQD_ASYNC_NOTIFY, en_sqd_async_notify)
	MERGE(IBV_QP_ACCESS_FLAGS, qp_access_flags)
	MERGE(IBV_QP_PKEY_INDEX, pkey_index)
	MERGE(IBV_QP_PORT, port_num)
	MERGE(IBV_QP_QKEY, qkey)
	MERGE(IBV_QP_AV, ah_attr)
	MERGE(IBV_QP_PATH_MTU, path_mtu)
	MERGE(IBV_QP_TIMEOUT, timeout)
	MERGE(IBV_QP_RETRY_CNT, retry_cnt)
	MERGE(IBV_QP_RNR_RETRY, rnr_retry)
	MERGE(IBV_QP_RQ_PSN, rq_psn)
	MERGE(IBV_QP_MAX_QP_RD_ATOMIC, max_rd_atomic)
	MERGE(IBV_QP_MIN_RNR_TIMER, min_rnr_timer)
	MERGE(IBV_QP_SQ_PSN, sq_psn)
	MERGE(IBV_QP_MAX_DEST_RD_ATOMIC, max_dest_rd_atomic)
	MERGE(IBV_QP_PATH_MIG_STATE, path_mig_state)
	MERGE(IBV_QP_DEST_QPN, dest_qp_num)
#undef MERGE
}

/* Its marker will not be seen any more. */
static void drop_marker(struct mig_qp *qp)
{
	struct mig_cq *cq = mig_cq(qp->ibv.send_cq);

	MIG_LOCKED(&cq->lock);
	if (qp->marker == MIG_MARKER_POSTED)
		cq->markers--;
	qp->marker = MIG_MARKER_NONE;
}

/* What was asked for is kept, so that it can be asked for again on another device. */
static void remember(struct mig_qp *qp, const struct ibv_qp_attr *attr, int mask)
{
	enum ibv_qp_state state = mask & IBV_QP_STATE ? attr->qp_state : qp->ibv.state;

	if (state == IBV_QPS_RESET && mask & IBV_QP_STATE) {
		memset(qp->masks, 0, sizeof(qp->masks));
		memset(&qp->attr, 0, sizeof(qp->attr));
		mig_recv_clear(qp);
		drop_marker(qp);
		qp->broken = 0;
		qp->dest_pqpn = 0;
		mig_send_gate(qp, MIG_GATE_FRESH, 0);
	}
	merge(qp, attr, mask);
	if (mask & IBV_QP_DEST_QPN)
		qp->dest_pqpn = attr->dest_qp_num;
	if (mask & IBV_QP_ALT_PATH)
		mig_cannot_migrate("a QP with an alternate path");
	if (mask & IBV_QP_AV && !attr->ah_attr.is_global)
		mig_cannot_migrate("a QP without a global route (LIDs do not move)");
	if (state >= IBV_QPS_INIT && state <= IBV_QPS_RTS) {
		if (mask & IBV_QP_STATE && state != qp->ibv.state)
			qp->masks[state] = mask;
		else
			qp->masks[state] |= mask & ~(IBV_QP_STATE | IBV_QP_CUR_STATE);
	}
	if (mask & IBV_QP_STATE)
		qp->ibv.state = attr->qp_state;
}

int ibv_modify_qp(struct ibv_qp *ibv, struct ibv_qp_attr *attr, int mask)
{
	struct mig_qp *qp = mig_qp(ibv);

	if (!qp)
		return mig_real()->ibv_modify_qp(ibv, attr, mask);
	MIG_VERB;
	struct ibv_qp_attr theirs = *attr;
	const struct mig_gid_map *gid = NULL;

	if (mask & IBV_QP_AV)
		gid = mig_gid_find(mig_context(ibv->context), attr->ah_attr.port_num, attr->ah_attr.grh.sgid_index);
	if (gid) {
		theirs.ah_attr.port_num = (uint8_t)gid->new_port;
		theirs.ah_attr.grh.sgid_index = (uint8_t)gid->new_index;
	}
	theirs.qp_access_flags |= mig_extra_access;
	int error = mig_real()->ibv_modify_qp(qp->real, &theirs, mask);
	if (error)
		return error;
	if (mask & IBV_QP_AV) {
		if (mig_real()->ibv_query_gid(qp->real->context, theirs.ah_attr.port_num,
					      theirs.ah_attr.grh.sgid_index, &qp->psgid))
			memset(&qp->psgid, 0, sizeof(qp->psgid));
		qp->sgid = gid ? gid->gid : qp->psgid;
		qp->pdgid = attr->ah_attr.grh.dgid;
	}
	remember(qp, attr, mask);
	return 0;
}

int ibv_query_qp(struct ibv_qp *ibv, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init)
{
	struct mig_qp *qp = mig_qp(ibv);

	if (!qp)
		return mig_real()->ibv_query_qp(ibv, attr, mask, init);
	MIG_VERB;
	int error = mig_real()->ibv_query_qp(qp->real, attr, mask, init);
	if (error)
		return error;
	if (qp->masks[IBV_QPS_RTR]) {
		/* In the numbers that the application gave, whatever they are now. */
		attr->dest_qp_num = qp->attr.dest_qp_num;
		attr->ah_attr.grh.dgid = qp->attr.ah_attr.grh.dgid;
		attr->ah_attr.grh.sgid_index = qp->attr.ah_attr.grh.sgid_index;
		attr->ah_attr.port_num = qp->attr.ah_attr.port_num;
	}
	if (qp->masks[IBV_QPS_INIT])
		attr->port_num = qp->attr.port_num;
	if (!(qp->attr.qp_access_flags & mig_extra_access))
		attr->qp_access_flags &= ~mig_extra_access;
	attr->cap = qp->cap;
	if (init) {
		init->qp_context = ibv->qp_context;
		init->send_cq = ibv->send_cq;
		init->recv_cq = ibv->recv_cq;
		init->srq = ibv->srq;
		init->cap = qp->cap;
	}
	if (mask & IBV_QP_STATE)
		ibv->state = attr->qp_state;
	return 0;
}

static int end_real_qp(struct mig_qp *qp)
{
	MIG_VERB;
	struct mig_context *context = mig_context(qp->ibv.context);
	uint32_t numbers[] = { qp->real->qp_num, qp->next ? qp->next->qp_num : qp->real->qp_num };
	int error = mig_real()->ibv_destroy_qp(qp->real);

	if (error)
		return error;
	if (qp->next)
		mig_real()->ibv_destroy_qp(qp->next);
	mig_lock(&context->lock);
	mig_list_remove(&qp->link);
	mig_numbers_remove(&context->vqpns, qp->ibv.qp_num, qp);
	for (int i = 0; i < 2; i++)
		if (mig_qp_by_pqpn(context, numbers[i]) == qp)
			mig_qpn_set(context, numbers[i], NULL);
	mig_unlock(&context->lock);
	mig_context_forget_events(context, &qp->ibv);
	drop_marker(qp);
	mig_send_gate(qp, 0, MIG_GATE_FLUSH);
	if (qp->quiesced) {
		mig_cq_gate(mig_cq(qp->ibv.send_cq), -1);
		mig_cq_gate(mig_cq(qp->ibv.recv_cq), -1);
	}
	return 0;
}

int ibv_destroy_qp(struct ibv_qp *ibv)
{
	struct mig_qp *qp = mig_qp(ibv);

	if (!qp)
		return mig_real()->ibv_destroy_qp(ibv);
	int error = end_real_qp(qp);
	if (error)
		return error;
	/* A poller may have found it in the table just before. */
	mig_synchronize();
	for (;;) {
		uint32_t seen = __atomic_load_n(&ibv->events_completed, __ATOMIC_ACQUIRE);

		if (seen == __atomic_load_n(&qp->async_events, __ATOMIC_RELAXED))
			break;
		mig_futex_wait((int *)&ibv->events_completed, (int)seen, -1);
	}
	mig_send_free(qp->kept);
	free(qp->ring);
	free(qp);
	return 0;
}
