#include "move/marker.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/section.h"
#include "objects/ah.h"
#include "shadow/cq.h"
#include "shadow/process.h"
#include "shadow/xrcd.h"

/* No application can name its own requests like this but by accident with 2^64 chances against. */
static uint64_t marker_name(void)
{
	static uint64_t markers;

	return mig.token ^ (++markers * 0x9e3779b97f4a7c15u);
}

/* Where there is no room to spare, one has to be risked. Must hold the lock. */
static int has_spare(const struct mig_cq *cq)
{
	return !cq->markers || cq->markers < cq->spare;
}

/*
 * A write of no bytes, which needs neither memory nor keys at either end. Fenced, so
 * that it is not sent before the reads that were posted have been answered: Soft-RoCE's responder ends the connection
 * when it has a read to answer again and the last thing it did was a write of no bytes (read_reply() in the kernel's
 * rxe_resp.c takes the length of the latter, and the memory region, which it then lacks, for the former's). On UC nobody
 * acknowledges it: it completes when all has left, and what is lost on its way is lost as ever.
 */
/*
 * On UD a datagram of no bytes to the queue pair itself, with another Q_Key than its own: so it completes, and is dropped where it
 * arrives. 0, or an errno.
 */
static int address(struct mig_qp *qp, struct ibv_send_wr *marker)
{
	if (!mig_is_datagram(qp))
		return 0;
	if (!qp->marker_ah)
		qp->marker_ah = mig_ah_to_itself(qp);
	marker->opcode = IBV_WR_SEND;
	marker->wr.ud.ah = qp->marker_ah;
	marker->wr.ud.remote_qpn = qp->real->qp_num;
	marker->wr.ud.remote_qkey = (qp->attr.qkey ^ 1) & 0x7fffffff;
	return qp->marker_ah ? 0 : errno;
}

/*
 * On XRC a write would have to name a shared receive queue of the peer, of which nobody here knows whether it is still there: one
 * that is not ends the connection. So the marker is one that does not leave: a window of type 1 is bound to nothing, whose completion
 * follows that of all that was posted before. 0, or an errno.
 */
static int make_window(struct mig_qp *qp)
{
	struct ibv_pd *pd = qp->ibv.qp_type == IBV_QPT_XRC_SEND ? mig_real_pd(qp->ibv.pd) : NULL;

	if (pd && !qp->marker_mw)
		qp->marker_mw = pd->context->ops.alloc_mw(pd, IBV_MW_TYPE_1);
	return pd && !qp->marker_mw ? errno : 0;
}

static int post(struct mig_qp *qp, struct ibv_send_wr *marker)
{
	struct ibv_mw_bind bind = { .wr_id = marker->wr_id, .send_flags = marker->send_flags };
	struct ibv_send_wr *bad;

	return qp->ibv.qp_type == IBV_QPT_XRC_SEND ? mig_context(qp->ibv.context)->bind_mw(qp->real, qp->marker_mw, &bind) :
						     qp->post_send(qp->real, marker, &bad);
}

int mig_marker_post(struct mig_qp *qp)
{
	struct mig_cq *cq = mig_send_cq(qp);
	unsigned int fence = qp->ibv.qp_type == IBV_QPT_RC ? IBV_SEND_FENCE : 0;
	struct ibv_send_wr marker = { .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED | fence };
	int error = address(qp, &marker);

	error = error ? error : make_window(qp);
	if (error)
		mig_log(MIG_LOG_WARN, "QP 0x%x cannot be given a marker: %s", qp->ibv.qp_num, strerror(error));
	if (error)
		return 1;

	MIG_LOCKED(&cq->lock);
	MIG_LOCKED(&qp->send_lock);
	if (!has_spare(cq))
		return 0;
	marker.wr_id = qp->marker_id = marker_name();
	if (post(qp, &marker))
		return 1; /* full: tried again when something has completed */
	cq->markers++;
	qp->marker = MIG_MARKER_POSTED;
	return 1;
}

void mig_marker_post_failure(struct mig_qp *qp)
{
	struct mig_cq *cq = mig_send_cq(qp);
	struct ibv_sge nowhere = { .addr = 8, .length = 8 };
	struct ibv_send_wr *bad, marker = { .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED, .sg_list = &nowhere,
					    .num_sge = 1 };

	if (address(qp, &marker))
		return;

	MIG_LOCKED(&cq->lock);
	MIG_LOCKED(&qp->send_lock);
	marker.wr_id = qp->marker_id = marker_name();
	if (qp->post_send(qp->real, &marker, &bad))
		return;
	MIG_SET_GATE(cq->fast, NULL);
	cq->markers++;
	qp->marker = MIG_MARKER_POSTED;
}

int mig_marker_post_recv(struct mig_qp *qp)
{
	struct mig_cq *cq = mig_recv_cq(qp);
	struct ibv_recv_wr *bad, marker = { .num_sge = 0 };

	MIG_LOCKED(&cq->lock);
	MIG_LOCKED(&qp->recv_lock);
	if (!has_spare(cq))
		return 0;
	marker.wr_id = qp->recv_marker_id = marker_name();
	if (qp->post_recv(qp->real, &marker, &bad))
		return 1;
	cq->markers++;
	qp->recv_marker = MIG_MARKER_POSTED;
	return 1;
}
