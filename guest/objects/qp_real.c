#include "objects/qp.h"

#include <errno.h>

#include "path/kept.h"
#include "path/recv.h"
#include "real/doorbell.h"
#include "real/real.h"
#include "shadow/cq.h"
#include "shadow/pd.h"
#include "shadow/places.h"
#include "shadow/process.h"
#include "shadow/srq.h"
#include "shadow/xrcd.h"

static struct ibv_qp *make_extended(struct ibv_pd *pd, struct ibv_xrcd *xrcd, struct ibv_qp_init_attr *init, uint64_t operations)
{
	struct ibv_qp_init_attr_ex extended = { .comp_mask = xrcd ? IBV_QP_INIT_ATTR_XRCD :
								    IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
						.qp_context = init->qp_context, .send_cq = init->send_cq,
						.recv_cq = init->recv_cq, .srq = init->srq, .cap = init->cap,
						.qp_type = init->qp_type, .sq_sig_all = init->sq_sig_all, .pd = pd,
						.xrcd = xrcd, .send_ops_flags = operations };
	struct ibv_context *context = xrcd ? xrcd->context : pd->context;
	struct verbs_context *verbs = verbs_get_ctx_op(context, create_qp_ex);

	if (!verbs) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	struct ibv_qp *real = verbs->create_qp_ex(context, &extended);

	init->cap = extended.cap;
	return real;
}

static struct ibv_qp *make_with_operations(struct ibv_pd *pd, struct ibv_xrcd *xrcd, struct ibv_qp_init_attr *init,
					   uint64_t operations)
{
	return operations || xrcd ? make_extended(pd, xrcd, init, operations) : mig_real()->ibv_create_qp(pd, init);
}

struct ibv_qp *mig_qp_make_with_spare(struct ibv_pd *pd, struct ibv_xrcd *xrcd, struct ibv_qp_init_attr *init, uint64_t operations,
				      uint32_t *extra)
{
	struct ibv_qp_init_attr larger = *init;
	struct ibv_qp *real;

	if (!xrcd && init->cap.max_send_wr && init->cap.max_send_wr != UINT32_MAX) {
		larger.cap.max_send_wr++;
		real = make_with_operations(pd, xrcd, &larger, operations);
		if (real) {
			*extra = 1;
			*init = larger;
			return real;
		}
	}
	*extra = 0;
	return make_with_operations(pd, xrcd, init, operations);
}

/* Of what a QP has that shares its receives some devices say how long its own queue is, and others that it has none. */
static int is_smaller(const struct mig_qp *qp, const struct ibv_qp_cap *cap)
{
	if (mig_is_target(qp))
		return 0;
	return cap->max_send_wr - qp->extra_send < qp->cap.max_send_wr || cap->max_send_sge < qp->cap.max_send_sge ||
	       cap->max_inline_data < qp->cap.max_inline_data ||
	       (!qp->shares && (cap->max_recv_wr < qp->cap.max_recv_wr || cap->max_recv_sge < qp->cap.max_recv_sge));
}

static struct ibv_qp *make_like(struct mig_qp *qp, struct ibv_pd *pd, struct ibv_xrcd *xrcd, struct ibv_cq *send_cq,
				struct ibv_cq *recv_cq, struct ibv_srq *srq)
{
	struct ibv_qp_init_attr init = qp->init;

	init.qp_context = qp;
	init.send_cq = send_cq;
	init.recv_cq = recv_cq;
	init.srq = srq;
	/* What the application was told is what it relies on. */
	init.cap = qp->cap;
	struct ibv_qp *real = mig_qp_make_with_spare(pd, xrcd, &init, qp->build ? qp->build->operations : 0, &qp->extra_send);
	if (real && is_smaller(qp, &init.cap)) {
		mig_real()->ibv_destroy_qp(real);
		errno = EOPNOTSUPP;
		return NULL;
	}
	return real;
}

struct ibv_qp *mig_qp_make_beside(struct mig_qp *qp)
{
	return make_like(qp, mig_real_pd(qp->ibv.pd), qp->xrcd ? qp->xrcd->real : NULL, mig_real_cq(qp->ibv.send_cq),
			 mig_real_cq(qp->ibv.recv_cq), mig_real_srq(qp->ibv.srq));
}

struct ibv_qp *mig_qp_make_next(struct mig_qp *qp)
{
	struct mig_cq *send_cq = mig_cq(qp->ibv.send_cq), *recv_cq = mig_cq(qp->ibv.recv_cq);

	return make_like(qp, qp->ibv.pd ? mig_pd(qp->ibv.pd)->next : NULL, qp->xrcd ? qp->xrcd->next : NULL,
			 send_cq ? send_cq->next : NULL, recv_cq ? recv_cq->next : NULL,
			 qp->ibv.srq ? mig_srq(qp->ibv.srq)->next : NULL);
}

void mig_qp_end_marker(struct mig_qp *qp)
{
	if (mig_is_datagram(qp) && qp->marker_ah)
		mig_real()->ibv_destroy_ah(qp->marker_ah);
	else if (qp->marker_mw)
		qp->marker_mw->context->ops.dealloc_mw(qp->marker_mw);
	qp->marker_ah = NULL;
}

void mig_qp_set_translation(struct mig_qp *qp)
{
	struct mig_context *context = mig_context(qp->ibv.context);
	uint32_t translate = context->lkeys || qp->rkeys || context->has_windows ? MIG_GATE_TRANSLATE : 0;

	if (mig_is_datagram(qp))
		translate = context->lkeys || context->exchanged || mig_places ? MIG_GATE_DATAGRAM : 0;
	if (qp->ibv.qp_type == IBV_QPT_XRC_SEND)
		translate = translate || qp->srqns ? MIG_GATE_TRANSLATE | MIG_GATE_SRQNS : 0;
	mig_send_gate(qp, translate, MIG_GATE_TRANSLATE | MIG_GATE_SRQNS | MIG_GATE_DATAGRAM);
}

void mig_qp_set_operations(struct mig_qp *qp)
{
	qp->post_send = mig.restored ? mig_post_and_ring : qp->real->context->ops.post_send;
	mig_recv_set_real(qp);
	if (qp->build) {
		qp->real_ex = mig_real()->ibv_qp_to_qp_ex(qp->real);
		qp->complete = mig.restored ? mig_complete_and_ring : qp->real_ex->wr_complete;
	}
	mig_qp_set_translation(qp);
}

static void drop_marker(struct mig_cq *cq, enum mig_marker *marker)
{
	MIG_LOCKED(&cq->lock);
	if (*marker == MIG_MARKER_POSTED)
		cq->markers--;
	*marker = MIG_MARKER_NONE;
}

void mig_qp_drop_marker(struct mig_qp *qp)
{
	drop_marker(mig_send_cq(qp), &qp->marker);
	drop_marker(mig_recv_cq(qp), &qp->recv_marker);
}
