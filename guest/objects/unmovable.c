#include "objects/unmovable.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/verb_gate.h"
#include "objects/offer.h"
#include "objects/qp.h"
#include "objects/srq.h"
#include "real/export.h"
#include "shadow/cq.h"
#include "shadow/marks.h"
#include "shadow/pd.h"
#include "shadow/qp.h"
#include "shadow/xrcd.h"

int ibv_query_qp_data_in_order(struct ibv_qp *qp, enum ibv_wr_opcode opcode, uint32_t flags)
{
	if (!mig_real()->ibv_query_qp_data_in_order)
		return 0;
	MIG_VERB;
	return mig_real()->ibv_query_qp_data_in_order(mig_real_qp(qp), opcode, flags);
}

static struct ibv_counters *create_counters(struct ibv_context *ibv, struct ibv_counters_init_attr *attr)
{
	MIG_VERB;
	struct ibv_counters *made = mig_real_operations(ibv)->create_counters(mig_context(ibv)->real, attr);
	return mig_marked(ibv, made, "counters");
}

static struct ibv_flow_action *create_flow_action_esp(struct ibv_context *ibv,
						      struct ibv_flow_action_esp_attr *attr)
{
	MIG_VERB;
	struct ibv_flow_action *made = mig_real_operations(ibv)->create_flow_action_esp(mig_context(ibv)->real, attr);
	return mig_marked(ibv, made, "a flow action");
}

static struct ibv_flow *create_flow(struct ibv_qp *qp, struct ibv_flow_attr *attr)
{
	MIG_VERB;
	struct ibv_flow *made = mig_real_operations(qp->context)->ibv_create_flow(mig_real_qp(qp), attr);
	return mig_marked(qp->context, made, "flow steering");
}

static struct ibv_wq *create_wq(struct ibv_context *ibv, struct ibv_wq_init_attr *attr)
{
	MIG_VERB;
	struct ibv_wq_init_attr theirs = *attr;

	theirs.pd = mig_real_pd(attr->pd);
	theirs.cq = mig_real_cq(attr->cq);
	struct ibv_wq *wq = mig_real_operations(ibv)->create_wq(mig_context(ibv)->real, &theirs);
	attr->max_wr = theirs.max_wr;
	attr->max_sge = theirs.max_sge;
	return mig_marked(ibv, wq, "a work queue");
}

static struct ibv_rwq_ind_table *create_rwq_ind_table(struct ibv_context *ibv,
						      struct ibv_rwq_ind_table_init_attr *attr)
{
	MIG_VERB;
	struct ibv_rwq_ind_table *made = mig_real_operations(ibv)->create_rwq_ind_table(mig_context(ibv)->real, attr);
	return mig_marked(ibv, made, "a receive work queue table");
}

static struct ibv_qp *create_qp_ex(struct ibv_context *ibv, struct ibv_qp_init_attr_ex *attr)
{
	MIG_VERB;
	struct ibv_qp_init_attr_ex theirs;
	size_t known = offsetof(struct ibv_qp_init_attr_ex, comp_mask) + sizeof(attr->comp_mask);

	if (mig_qp_is_built_with(attr))
		return mig_qp_create_to_build(attr);
	if (mig_qp_is_target(attr))
		return mig_qp_create_target(ibv, attr);
	/* Only as much of it is there as its mask says. */
	if (attr->comp_mask & ~(uint32_t)IBV_QP_INIT_ATTR_PD)
		known = sizeof(theirs);
	else if (attr->comp_mask)
		known = offsetof(struct ibv_qp_init_attr_ex, pd) + sizeof(attr->pd);
	memset(&theirs, 0, sizeof(theirs));
	memcpy(&theirs, attr, known);
	theirs.send_cq = mig_real_cq(attr->send_cq);
	theirs.recv_cq = mig_real_cq(attr->recv_cq);
	theirs.srq = mig_real_srq(attr->srq);
	if (attr->comp_mask & IBV_QP_INIT_ATTR_PD)
		theirs.pd = mig_real_pd(attr->pd);
	if (attr->comp_mask & IBV_QP_INIT_ATTR_XRCD)
		theirs.xrcd = mig_real_xrcd(attr->xrcd);
	int error = mig_srq_used_by_stranger(attr->srq, attr->recv_cq);
	if (error) {
		errno = error;
		return NULL;
	}
	struct ibv_qp *qp = mig_real_operations(ibv)->create_qp_ex(mig_context(ibv)->real, &theirs);
	attr->cap = theirs.cap;
	return mig_marked(ibv, qp, attr->qp_type == IBV_QPT_UD ? "a UD QP made by ibv_create_qp_ex" : "a QP made by ibv_create_qp_ex");
}

static struct ibv_qp *open_qp(struct ibv_context *ibv, struct ibv_qp_open_attr *attr)
{
	MIG_VERB;
	struct ibv_qp_open_attr theirs = *attr;

	if (attr->comp_mask & IBV_QP_OPEN_ATTR_XRCD)
		theirs.xrcd = mig_real_xrcd(attr->xrcd);
	struct ibv_qp *qp = mig_real_operations(ibv)->open_qp(mig_context(ibv)->real, &theirs);
	return mig_marked(ibv, qp, "a shared XRC QP");
}

void mig_unmovable_offer(struct mig_context *context)
{
	struct verbs_context *verbs = &context->verbs;

	MIG_OFFER(context, create_counters, create_counters);
	MIG_OFFER(context, create_flow_action_esp, create_flow_action_esp);
	MIG_OFFER(context, create_wq, create_wq);
	MIG_OFFER(context, create_rwq_ind_table, create_rwq_ind_table);
	MIG_OFFER(context, create_qp_ex, create_qp_ex);
	MIG_OFFER(context, open_qp, open_qp);
	MIG_OFFER(context, ibv_create_flow, create_flow);
	/* Programs built against libibverbs 1.1.8 look here. */
	MIG_PUT(verbs->ABI_placeholder1, (void (*)(void))verbs->ibv_create_flow);
}
