/* What the application has made of a queue pair, kept so that it can be asked for again on another device. */
#include <errno.h>
#include <string.h>

#include "base/keymap.h"
#include "base/verb_gate.h"
#include "objects/qp.h"
#include "path/hold.h"
#include "real/export.h"
#include "shadow/find.h"
#include "shadow/marks.h"

static void qp_merge(struct mig_qp *qp, const struct ibv_qp_attr *attr, int mask)
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

static const char alternate_path[] = "a QP with an alternate path";
static const char no_route[] = "a QP without a global route (LIDs do not move)";

static void qp_remember(struct mig_qp *qp, const struct ibv_qp_attr *attr, int mask)
{
	enum ibv_qp_state state = mask & IBV_QP_STATE ? attr->qp_state : qp->ibv.state;

	if (state == IBV_QPS_RESET && mask & IBV_QP_STATE) {
		memset(qp->masks, 0, sizeof(qp->masks));
		memset(&qp->attr, 0, sizeof(qp->attr));
		qp->has_ece = qp->has_rate = 0;
		while (mig_unmark(&qp->ibv, alternate_path) || mig_unmark(&qp->ibv, no_route))
			;
	}
	qp_merge(qp, attr, mask);
	if (mask & IBV_QP_DEST_QPN)
		qp->dest_pqpn = attr->dest_qp_num;
	if (mask & IBV_QP_ALT_PATH)
		mig_mark(mig_context(qp->ibv.context), &qp->ibv, alternate_path);
	if (mask & IBV_QP_AV && !attr->ah_attr.is_global)
		mig_mark(mig_context(qp->ibv.context), &qp->ibv, no_route);
	/* Which state it was in is no property of the next one. */
	mask &= ~IBV_QP_CUR_STATE;
	if (state >= IBV_QPS_INIT && state <= IBV_QPS_RTS) {
		/* What it takes to get there from the state before; on the way back from SQD only changes are said. */
		if (mask & IBV_QP_STATE && qp->ibv.state < state)
			qp->masks[state] = mask;
		else
			qp->masks[state] |= mask & ~IBV_QP_STATE;
	}
	if (mask & IBV_QP_STATE)
		qp->ibv.state = attr->qp_state;
}

void mig_qp_look(struct mig_qp *qp)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;

	if (qp->ibv.state < IBV_QPS_RTR || mig_is_dead(qp))
		return;
	/* Every driver says it, whatever it is asked for; asked for by name, libibverbs would write it where posts read it. */
	if (mig_real()->ibv_query_qp(qp->real, &attr, IBV_QP_CUR_STATE, &init))
		return;
	qp->failed = attr.qp_state == IBV_QPS_ERR;
	qp->sends_failed = attr.qp_state == IBV_QPS_SQE;
}

/* The peer that it faces already may have moved since the application was told where it is. */
static int faces_where_it_did(const struct mig_qp *qp, const struct ibv_qp_attr *attr, int mask)
{
	return mask & IBV_QP_AV && !(mask & IBV_QP_DEST_QPN) && qp->masks[IBV_QPS_RTR] &&
	       !memcmp(&attr->ah_attr.grh.dgid, &qp->attr.ah_attr.grh.dgid, sizeof(attr->ah_attr.grh.dgid));
}

/* Returned where the process was moved between a question and what was to be done with the answer. */
#define MOVED_MEANWHILE (-1)

static int modify(struct mig_qp *qp, const struct ibv_qp_attr *attr, int mask, struct mig_other_end *end)
{
	MIG_VERB_AS("modify_qp");
	struct ibv_qp *ibv = &qp->ibv;
	struct ibv_qp_attr theirs = *attr;

	if (end->asked_by && end->asked_by != qp->real)
		return MOVED_MEANWHILE;
	if (end->asked_by) {
		theirs.dest_qp_num = end->qpn;
		theirs.ah_attr.grh.dgid = end->gid;
	}
	if (faces_where_it_did(qp, attr, mask))
		theirs.ah_attr.grh.dgid = qp->pdgid;
	const struct mig_gid_map *gid = NULL;

	if (mask & IBV_QP_AV)
		gid = mig_gid_find(mig_context(ibv->context), attr->ah_attr.port_num, attr->ah_attr.grh.sgid_index);
	if (gid) {
		theirs.ah_attr.port_num = (uint8_t)gid->new_port;
		theirs.ah_attr.grh.sgid_index = (uint8_t)gid->new_index;
	}
	theirs.qp_access_flags |= mig_extra_access;
	/* The other end has been told where this one begins. */
	if (mask & IBV_QP_SQ_PSN && qp->psn_is_agreed)
		theirs.sq_psn = qp->agreed_sq_psn;
	enum ibv_qp_state before = qp->ibv.state;
	/* What may be changed, and from where, is told by the state that the application has left it in. The drain takes it out again. */
	mig_qp_stop_resumed(qp);
	int stops = mask & IBV_QP_STATE && attr->qp_state == IBV_QPS_SQD && before == IBV_QPS_RTS;
	if (stops)
		mig_qp_stop(qp);
	int error = mig_real()->ibv_modify_qp(qp->real, &theirs, mask);
	if (error && stops)
		mig_qp_go_on(qp);
	if (error)
		return error;
	if (mask & IBV_QP_AV) {
		if (mig_real()->ibv_query_gid(qp->real->context, theirs.ah_attr.port_num,
					      theirs.ah_attr.grh.sgid_index, &qp->psgid))
			memset(&qp->psgid, 0, sizeof(qp->psgid));
		qp->sgid = gid ? gid->gid : qp->psgid;
		qp->pdgid = theirs.ah_attr.grh.dgid;
	}
	qp_remember(qp, attr, mask);
	if (end->asked_by)
		mig_qp_face(qp, end);
	if (mask & IBV_QP_STATE && (attr->qp_state != before || attr->qp_state == IBV_QPS_RESET))
		mig_qp_state_changed(qp, before);
	return 0;
}

int ibv_modify_qp(struct ibv_qp *ibv, struct ibv_qp_attr *attr, int mask)
{
	struct mig_qp *qp = mig_qp(ibv);
	struct mig_other_end end;
	int error;

	if (!qp)
		return mig_real()->ibv_modify_qp(ibv, attr, mask);
	do {
		error = mig_qp_find_other_end(qp, attr, mask, &end);
		if (!error)
			error = modify(qp, attr, mask, &end);
		/* Nobody has taken them over. */
		mig_keymap_drop(end.rkeys);
	} while (error == MOVED_MEANWHILE);
	return error;
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
	/* The drain of a move is not the application's affair. */
	if (qp->ibv.state == IBV_QPS_SQD && qp->resumed == qp->real && attr->qp_state == IBV_QPS_RTS)
		attr->qp_state = attr->cur_qp_state = IBV_QPS_SQD;
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
