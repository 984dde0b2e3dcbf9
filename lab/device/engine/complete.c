/* The requester's other half: acknowledgements and responses end requests, or have them sent again. */
#include "internal.h"

static struct rnic_sent *sent_at(struct rnic_qp *qp, uint32_t counter)
{
	return &qp->req.sent[counter & qp->req.queue.mask];
}

static void complete_request(struct rnic_qp *qp, const struct rnic_sent *sent)
{
	struct rnic_queue *queue = &qp->req.queue;
	const struct rnic_send *wr = rnic_queue_at(queue, queue->head);
	enum ibv_wc_status status = sent->state == RNIC_FAILED ? (enum ibv_wc_status)sent->status : IBV_WC_SUCCESS;
	struct rnic_completion completion = { .wr_id = wr->wr_id,
					      .status = status,
					      .opcode = rnic_wc_opcode(sent->opcode),
					      .bytes = sent->length,
					      .qpn = rnic_qpn(qp) };
	/* An error is always told (IBTA 10.7.3.1). */
	bool told = qp->sq_sig_all || wr->flags & IBV_SEND_SIGNALED || status != IBV_WC_SUCCESS;

	qp->device->counters[RNIC_EXECUTED]++;
	rnic_queue_consume(queue, queue->head + 1);
	if (told)
		rnic_complete(qp->send_cq, &completion, false);
}

static void drained(struct rnic_qp *qp)
{
	qp->draining = false;
	if (qp->drain_event)
		rnic_qp_event(qp, IBV_EVENT_SQ_DRAINED);
	qp->drain_event = false;
}

/* Completes what is done, in the order in which it was posted. */
void rnic_retire(struct rnic_qp *qp)
{
	struct rnic_requester *req = &qp->req;

	while (req->queue.head != req->started) {
		struct rnic_sent *sent = sent_at(qp, req->queue.head);
		bool failed = sent->state == RNIC_FAILED;

		if (sent->state != RNIC_DONE && !failed)
			break;
		if (req->next == req->queue.head)
			req->next++;
		complete_request(qp, sent);
		if (!failed)
			continue;
		if (rnic_acknowledges(qp)) {
			rnic_to_error(qp);
		} else {
			/* The receive queue of an unreliable QP works on (IBTA 10.3.1.6). */
			qp->state = IBV_QPS_SQE;
			req->failed = req->loaded = false;
			req->offset = 0;
			rnic_flush(qp);
		}
		return;
	}
	if (qp->draining && qp->state == IBV_QPS_SQD && req->queue.head == req->started && !req->offset)
		drained(qp);
	if (req->blocked) {
		req->blocked = false;
		rnic_runnable(qp);
	}
}

void rnic_fail_request(struct rnic_qp *qp, uint32_t counter, enum ibv_wc_status status)
{
	struct rnic_sent *sent = sent_at(qp, counter);

	sent->state = RNIC_FAILED;
	sent->status = (uint8_t)status;
	qp->req.failed = true;
	rnic_retire(qp);
}

uint32_t rnic_sent_find(struct rnic_qp *qp, uint32_t psn)
{
	uint32_t counter = qp->req.queue.head;

	for (; counter != qp->req.started; counter++) {
		const struct rnic_sent *sent = sent_at(qp, counter);

		if (sent->state == RNIC_SENT &&
		    rnic_psn_minus(psn, sent->first_psn) <= rnic_psn_minus(sent->last_psn, sent->first_psn))
			break;
	}
	return counter;
}

void rnic_go_back(struct rnic_qp *qp, uint32_t psn)
{
	struct rnic_requester *req = &qp->req;
	uint32_t target = rnic_sent_find(qp, psn), mtu = rnic_mtu_bytes(qp->attr.path_mtu);

	if (target == req->started)
		return;
	qp->device->counters[RNIC_RETRIES]++;
	for (uint32_t counter = target; counter != req->started; counter++) {
		struct rnic_sent *sent = sent_at(qp, counter);

		if (sent->awaits_response)
			req->reads--;
		sent->awaits_response = false;
	}
	req->next = target;
	req->loaded = false;
	req->offset = 0;
	req->psn = psn;
	if (sent_at(qp, target)->opcode != IBV_WR_RDMA_READ)
		req->offset = rnic_psn_minus(psn, sent_at(qp, target)->first_psn) * mtu;
	rnic_runnable(qp);
}

static bool is_outstanding(const struct rnic_qp *qp, uint32_t psn)
{
	return rnic_psn_minus(psn, qp->req.acked) < rnic_psn_minus(qp->req.psn, qp->req.acked);
}

/* Of a response: of the piece that comes next. */
static uint32_t due_psn(const struct rnic_qp *qp, const struct rnic_sent *sent)
{
	return rnic_psn_add(sent->first_psn, sent->received / rnic_mtu_bytes(qp->attr.path_mtu));
}

/* Everything before psn has been executed; false: a response among it was lost, and is asked for again. */
static bool acknowledge_before(struct rnic_qp *qp, uint32_t psn)
{
	struct rnic_requester *req = &qp->req;

	for (uint32_t counter = req->queue.head; counter != req->started; counter++) {
		struct rnic_sent *sent = sent_at(qp, counter);

		if (sent->state == RNIC_DONE)
			continue;
		if (sent->state != RNIC_SENT || !rnic_psn_before(sent->last_psn, psn))
			break;
		if (sent->awaits_response) {
			req->acked = due_psn(qp, sent);
			rnic_go_back(qp, req->acked);
			return false;
		}
		sent->state = RNIC_DONE;
	}
	req->acked = psn;
	req->retries = 0;
	return true;
}

void rnic_unheard(struct rnic_qp *qp, const struct rnic_packet *packet)
{
	if (!rnic_acknowledges(qp) || qp->state < IBV_QPS_RTS || !is_outstanding(qp, packet->psn))
		return;
	rnic_go_back(qp, packet->psn);
	rnic_park(qp);
}

static void refused(struct rnic_qp *qp, const struct rnic_packet *packet)
{
	static const enum ibv_wc_status statuses[] = {
		[RNIC_INVALID_REQUEST] = IBV_WC_REM_INV_REQ_ERR,
		[RNIC_ACCESS_ERROR] = IBV_WC_REM_ACCESS_ERR,
		[RNIC_OPERATIONAL_ERROR] = IBV_WC_REM_OP_ERR,
	};
	uint32_t counter = rnic_sent_find(qp, packet->psn);

	if (counter != qp->req.started)
		rnic_fail_request(qp, counter, statuses[packet->syndrome]);
}

void rnic_acknowledged(struct rnic_qp *qp, const struct rnic_packet *packet)
{
	/* Late, or of a connection that was before this one. */
	if (!qp->req.sent || qp->req.waiting || !is_outstanding(qp, packet->psn))
		return;
	if (packet->syndrome == RNIC_ACKNOWLEDGED) {
		qp->req.rnr_retries = 0;
		if (acknowledge_before(qp, rnic_psn_add(packet->psn, 1)))
			rnic_await(qp);
		rnic_retire(qp);
		return;
	}
	if (!acknowledge_before(qp, packet->psn))
		return;
	rnic_retire(qp);
	if (qp->req.failed || !is_outstanding(qp, packet->psn))
		return;
	switch (packet->syndrome) {
	case RNIC_NOT_READY:
		rnic_go_back(qp, packet->psn);
		rnic_wait_for_receive(qp, packet->timer);
		break;
	case RNIC_BAD_SEQUENCE:
		rnic_go_back(qp, packet->psn);
		break;
	default:
		refused(qp, packet);
		break;
	}
}

/* The response that is due: that of the oldest request that awaits one. */
static uint32_t awaited(struct rnic_qp *qp)
{
	uint32_t counter = qp->req.queue.head;

	while (counter != qp->req.started && !sent_at(qp, counter)->awaits_response)
		counter++;
	return counter;
}

static bool is_due(struct rnic_qp *qp, const struct rnic_packet *packet, uint32_t *counter)
{
	const struct rnic_sent *sent;

	if (!qp->req.sent)
		return false;
	*counter = awaited(qp);
	if (*counter == qp->req.started)
		return false;
	sent = sent_at(qp, *counter);
	return packet->psn == due_psn(qp, sent) && packet->bytes <= sent->length - sent->received && acknowledge_before(qp, packet->psn);
}

static void response_arrived(struct rnic_qp *qp, const struct rnic_packet *packet, uint32_t counter)
{
	struct rnic_sent *sent = sent_at(qp, counter);
	struct rnic_request request;
	enum ibv_wc_status status = rnic_load(qp, counter, &request);

	if (status == IBV_WC_SUCCESS && packet->bytes)
		status = rnic_scatter(qp->device, qp->pd, request.sges, request.wr.num_sge, sent->received, packet->bytes,
				      packet->data);
	if (status != IBV_WC_SUCCESS) {
		rnic_fail_request(qp, counter, status);
		return;
	}
	sent->received += packet->bytes;
	qp->req.acked = rnic_psn_add(packet->psn, rnic_packets_of(qp, packet->bytes));
	if (sent->received == sent->length) {
		sent->state = RNIC_DONE;
		sent->awaits_response = false;
		qp->req.reads--;
		qp->req.acked = rnic_psn_add(sent->last_psn, 1);
	}
	qp->req.rnr_retries = 0;
	rnic_await(qp);
	rnic_retire(qp);
}

void rnic_read_arrived(struct rnic_qp *qp, const struct rnic_packet *packet)
{
	uint32_t counter;

	if (is_due(qp, packet, &counter) && sent_at(qp, counter)->opcode == IBV_WR_RDMA_READ)
		response_arrived(qp, packet, counter);
}

void rnic_atomic_arrived(struct rnic_qp *qp, const struct rnic_packet *packet)
{
	uint32_t counter;

	if (is_due(qp, packet, &counter) && sent_at(qp, counter)->opcode != IBV_WR_RDMA_READ)
		response_arrived(qp, packet, counter);
}
