/*
 * Completion counters, which are newer than most of what an application is built against: passed on, and a reason against
 * a move as long as one lives.
 */
#include <errno.h>

#include "base/verb_gate.h"
#include "objects/offer.h"
#include "real/export.h"
#include "shadow/qp.h"

static const char counter[] = "a completion counter";

int _ibv_query_comp_cntr_caps(struct ibv_context *ibv, struct ibv_comp_cntr_caps *caps, size_t size)
{
	struct mig_context *context = mig_context(ibv);

	if (!mig_real()->_ibv_query_comp_cntr_caps)
		return EOPNOTSUPP;
	MIG_VERB;
	return mig_real()->_ibv_query_comp_cntr_caps(context ? context->real : ibv, caps, size);
}

struct ibv_comp_cntr *ibv_create_comp_cntr(struct ibv_context *ibv, struct ibv_comp_cntr_init_attr *attr)
{
	struct mig_context *context = mig_context(ibv);

	if (!mig_real()->ibv_create_comp_cntr) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	if (!context)
		return mig_real()->ibv_create_comp_cntr(ibv, attr);
	MIG_VERB;
	return mig_marked(ibv, mig_real()->ibv_create_comp_cntr(context->real, attr), counter);
}

int ibv_destroy_comp_cntr(struct ibv_comp_cntr *object)
{
	if (!mig_real()->ibv_destroy_comp_cntr)
		return EOPNOTSUPP;
	struct mig_mark *marks = mig_marks_take(object);
	int error = mig_real()->ibv_destroy_comp_cntr(object);

	mig_marks_settle(marks, error);
	return error;
}

/* The next real queue pair would not have it: a mark of its own, which counts at a partner as well. */
int ibv_qp_attach_comp_cntr(struct ibv_qp *qp, struct ibv_comp_cntr *object, struct ibv_qp_attach_comp_cntr_attr *attr)
{
	if (!mig_real()->ibv_qp_attach_comp_cntr)
		return EOPNOTSUPP;
	MIG_VERB;
	int error = mig_real()->ibv_qp_attach_comp_cntr(mig_real_qp(qp), object, attr);
	if (!error && mig_qp(qp))
		mig_mark(mig_context(qp->context), qp, counter);
	return error;
}
