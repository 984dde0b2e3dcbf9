/*
 * What a queue pair may be given besides its attributes. Options of enhanced connection establishment are agreed on by both
 * ends before they connect; both are new after a move, and go on without them. A rate goes with the queue pair.
 */
#include "objects/qp_options.h"

#include <errno.h>

#include "base/log.h"
#include "base/verb_gate.h"
#include "objects/offer.h"
#include "real/export.h"

int ibv_set_ece(struct ibv_qp *ibv, struct ibv_ece *ece)
{
	struct mig_qp *qp = mig_qp(ibv);

	if (!mig_real()->ibv_set_ece)
		return EOPNOTSUPP;
	MIG_VERB;
	int error = mig_real()->ibv_set_ece(mig_real_qp(ibv), ece);
	if (qp && !error) {
		qp->ece = *ece;
		qp->has_ece = 1;
	}
	return error;
}

int ibv_query_ece(struct ibv_qp *ibv, struct ibv_ece *ece)
{
	if (!mig_real()->ibv_query_ece)
		return EOPNOTSUPP;
	MIG_VERB;
	return mig_real()->ibv_query_ece(mig_real_qp(ibv), ece);
}

/* Of one that is not connected yet the other end may hear what was set here. */
void mig_qp_set_ece_again(struct mig_qp *qp)
{
	struct ibv_ece ece = qp->ece;

	if (!qp->has_ece || qp->masks[IBV_QPS_RTR])
		return;
	if (!mig_real()->ibv_set_ece || mig_real()->ibv_set_ece(qp->next, &ece))
		mig_log(MIG_LOG_WARN, "QP %u goes on without the options of its connection establishment", qp->ibv.qp_num);
}

static int modify_qp_rate_limit(struct ibv_qp *ibv, struct ibv_qp_rate_limit_attr *attr)
{
	MIG_VERB;
	struct mig_qp *qp = mig_qp(ibv);
	int error = mig_real_operations(ibv->context)->modify_qp_rate_limit(mig_real_qp(ibv), attr);
	if (error)
		return error;
	if (attr->comp_mask)
		mig_mark(mig_context(ibv->context), ibv, "a QP with a rate limit of an unknown kind");
	qp->rate = *attr;
	qp->has_rate = 1;
	return 0;
}

int mig_qp_limit_rate_again(struct mig_qp *qp)
{
	struct ibv_qp_rate_limit_attr rate = qp->rate;
	struct verbs_context *verbs = verbs_get_ctx_op(qp->next->context, modify_qp_rate_limit);

	if (!qp->has_rate)
		return 0;
	return verbs ? verbs->modify_qp_rate_limit(qp->next, &rate) : EOPNOTSUPP;
}

void mig_qp_options_offer(struct mig_context *context)
{
	MIG_OFFER(context, modify_qp_rate_limit, modify_qp_rate_limit);
}
