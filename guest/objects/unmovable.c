/* Exported verbs that are passed on with the real objects in place of ours. See operations.c. */
#include <errno.h>

#include "real/export.h"
#include "objects/object.h"
#include "base/verb_gate.h"

struct ibv_ah *ibv_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr)
{
	if (!mig_pd(pd))
		return mig_real()->ibv_create_ah(pd, attr);
	MIG_VERB;
	mig_cannot_migrate("an address handle");
	return mig_real()->ibv_create_ah(mig_real_pd(pd), attr);
}

struct ibv_ah *ibv_create_ah_from_wc(struct ibv_pd *pd, struct ibv_wc *wc, struct ibv_grh *grh, uint8_t port)
{
	if (!mig_pd(pd))
		return mig_real()->ibv_create_ah_from_wc(pd, wc, grh, port);
	MIG_VERB;
	mig_cannot_migrate("an address handle");
	return mig_real()->ibv_create_ah_from_wc(mig_real_pd(pd), wc, grh, port);
}

struct ibv_srq *ibv_create_srq(struct ibv_pd *pd, struct ibv_srq_init_attr *attr)
{
	if (!mig_pd(pd))
		return mig_real()->ibv_create_srq(pd, attr);
	MIG_VERB;
	mig_cannot_migrate("a shared receive queue");
	return mig_real()->ibv_create_srq(mig_real_pd(pd), attr);
}

int ibv_attach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid)
{
	if (!mig_qp(qp))
		return mig_real()->ibv_attach_mcast(qp, gid, lid);
	MIG_VERB;
	mig_cannot_migrate("multicast");
	return mig_real()->ibv_attach_mcast(mig_real_qp(qp), gid, lid);
}

int ibv_detach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid)
{
	if (!mig_qp(qp))
		return mig_real()->ibv_detach_mcast(qp, gid, lid);
	MIG_VERB;
	return mig_real()->ibv_detach_mcast(mig_real_qp(qp), gid, lid);
}

int ibv_set_ece(struct ibv_qp *qp, struct ibv_ece *ece)
{
	if (!mig_real()->ibv_set_ece)
		return EOPNOTSUPP;
	if (!mig_qp(qp))
		return mig_real()->ibv_set_ece(qp, ece);
	MIG_VERB;
	int error = mig_real()->ibv_set_ece(mig_real_qp(qp), ece);
	if (!error)
		mig_cannot_migrate("enhanced connection establishment options");
	return error;
}

int ibv_query_ece(struct ibv_qp *qp, struct ibv_ece *ece)
{
	if (!mig_real()->ibv_query_ece)
		return EOPNOTSUPP;
	MIG_VERB;
	return mig_real()->ibv_query_ece(mig_real_qp(qp), ece);
}

int ibv_query_qp_data_in_order(struct ibv_qp *qp, enum ibv_wr_opcode opcode, uint32_t flags)
{
	if (!mig_real()->ibv_query_qp_data_in_order)
		return 0;
	MIG_VERB;
	return mig_real()->ibv_query_qp_data_in_order(mig_real_qp(qp), opcode, flags);
}

/* The QPs that we shadow were made without the extended interface. */
struct ibv_qp_ex *ibv_qp_to_qp_ex(struct ibv_qp *qp)
{
	return mig_qp(qp) || !mig_real()->ibv_qp_to_qp_ex ? NULL : mig_real()->ibv_qp_to_qp_ex(qp);
}
