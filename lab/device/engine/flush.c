/* Leaving service: RESET forgets, ERR completes everything with a flush error, SQE only what was to be sent. */
#include "internal.h"

static void stop(struct rnic_qp *qp)
{
	struct rnic_fabric *fabric = qp->device->fabric;

	rnic_event_cancel(fabric, &qp->req.retry_event);
	rnic_event_cancel(fabric, &qp->req.wait_event);
	rnic_list_remove(&qp->run);
	rnic_list_remove(&qp->park);
	rnic_list_remove(&qp->starves);
	qp->req.waiting = qp->req.failed = qp->req.loaded = qp->req.blocked = false;
	qp->req.reads = qp->req.offset = 0;
	qp->req.retries = qp->req.rnr_retries = 0;
	qp->resp.reply_head = qp->resp.reply_tail = 0;
}

static void flush_sends(struct rnic_qp *qp)
{
	struct rnic_requester *req = &qp->req;

	for (uint32_t end = rnic_queue_produced(&req->queue); req->queue.head != end;) {
		const struct rnic_send *wr = rnic_queue_at(&req->queue, req->queue.head);
		struct rnic_completion completion = { .wr_id = wr->wr_id,
						      .status = IBV_WC_WR_FLUSH_ERR,
						      .opcode = rnic_wc_opcode(wr->opcode),
						      .qpn = rnic_qpn(qp) };

		rnic_queue_consume(&req->queue, req->queue.head + 1);
		rnic_complete(qp->send_cq, &completion, false);
	}
	req->next = req->started = req->queue.head;
}

static void flush_receive(struct rnic_qp *qp, struct rnic_cq *cq, uint64_t wr_id)
{
	struct rnic_completion completion = { .wr_id = wr_id,
					      .status = IBV_WC_WR_FLUSH_ERR,
					      .opcode = IBV_WC_RECV,
					      .qpn = rnic_qpn(qp) };

	rnic_complete(cq, &completion, false);
}

static void flush_receives(struct rnic_qp *qp)
{
	struct rnic_queue *queue = &qp->resp.queue;
	struct rnic_srq *srq = rnic_message_srq(qp, qp->resp.srqn);

	/* A receive of a shared queue that a broken-off message had taken already. */
	if (qp->resp.has_receive && srq)
		flush_receive(qp, srq->cq ? srq->cq : qp->recv_cq, qp->resp.taken->wr_id);
	qp->resp.has_receive = qp->resp.in_message = false;
	for (uint32_t end = rnic_queue_produced(queue); queue->head != end;) {
		const struct rnic_receive *receive = rnic_queue_at(queue, queue->head);
		uint64_t wr_id = receive->wr_id;

		rnic_queue_consume(queue, queue->head + 1);
		flush_receive(qp, qp->recv_cq, wr_id);
	}
}

void rnic_flush(struct rnic_qp *qp)
{
	if (qp->send_cq)
		flush_sends(qp);
	if (qp->state != IBV_QPS_ERR)
		return;
	if (qp->type != IBV_QPT_XRC_SEND)
		flush_receives(qp);
	/* From here on it takes nothing out of the shared queue any more. */
	if (qp->srq && !qp->last_wqe_told) {
		qp->last_wqe_told = true;
		rnic_qp_event(qp, IBV_EVENT_QP_LAST_WQE_REACHED);
	}
}

void rnic_to_error(struct rnic_qp *qp)
{
	if (qp->state == IBV_QPS_ERR)
		return;
	stop(qp);
	qp->state = IBV_QPS_ERR;
	qp->draining = false;
	rnic_flush(qp);
}

void rnic_to_reset(struct rnic_qp *qp)
{
	stop(qp);
	qp->state = IBV_QPS_RESET;
	qp->draining = qp->drain_event = qp->last_wqe_told = false;
	qp->resp.has_receive = qp->resp.in_message = qp->resp.dropping = qp->resp.nak_sent = false;
	memset(qp->resp.results, 0, sizeof(qp->resp.results));
	rnic_queue_consume(&qp->req.queue, rnic_queue_produced(&qp->req.queue));
	qp->req.next = qp->req.started = qp->req.queue.head;
	rnic_queue_consume(&qp->resp.queue, rnic_queue_produced(&qp->resp.queue));
}
