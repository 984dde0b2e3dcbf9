/* The responder: what arrives at a connected QP, in which order, and what is refused. */
#include "internal.h"

struct rnic_srq *rnic_message_srq(const struct rnic_qp *qp, uint32_t srqn)
{
	struct rnic_link *link;
	struct rnic_srq *srq;

	if (qp->type != IBV_QPT_XRC_RECV)
		return qp->srq;
	link = rnic_table_find(&qp->device->srqs, srqn);
	srq = link ? rnic_of(link, struct rnic_srq, object.link) : NULL;
	return srq && srq->domain == qp->domain ? srq : NULL;
}

struct rnic_pd *rnic_message_pd(const struct rnic_qp *qp, uint32_t srqn)
{
	struct rnic_srq *srq;

	if (qp->type != IBV_QPT_XRC_RECV)
		return qp->pd;
	srq = rnic_message_srq(qp, srqn);
	return srq ? srq->pd : NULL;
}

bool rnic_take_receive(struct rnic_qp *qp)
{
	struct rnic_responder *resp = &qp->resp;
	struct rnic_srq *srq = rnic_message_srq(qp, resp->srqn);

	if (resp->has_receive)
		return true;
	if (srq || qp->type == IBV_QPT_XRC_RECV) {
		resp->has_receive = srq && rnic_srq_take(srq, resp->taken);
		/* For those who wait without a timer. */
		if (srq && !resp->has_receive && !qp->starves.next)
			rnic_list_add(&srq->starving, &qp->starves);
		return resp->has_receive;
	}
	if (rnic_queue_produced(&resp->queue) != resp->queue.head && rnic_is_fault(qp->device, RNIC_SET_LOSE_RECEIVE))
		rnic_queue_consume(&resp->queue, resp->queue.head + 1);
	resp->has_receive = rnic_queue_receive(&resp->queue, resp->queue.head, qp->cap.max_recv_sge, resp->taken);
	return resp->has_receive;
}

void rnic_receive_done(struct rnic_qp *qp, const struct rnic_packet *packet, enum ibv_wc_status status, uint32_t bytes,
		       unsigned int flags)
{
	struct rnic_responder *resp = &qp->resp;
	struct rnic_srq *srq = rnic_message_srq(qp, resp->srqn);
	struct rnic_cq *cq = srq && srq->cq ? srq->cq : qp->recv_cq;
	bool write = packet->opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
	struct rnic_completion completion = {
		.wr_id = resp->taken->wr_id,
		.status = status,
		.opcode = write ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV,
		.bytes = bytes,
		.imm = packet->imm,
		.qpn = rnic_qpn(qp),
		.source_qpn = packet->source_qpn,
		.flags = flags,
		.srqn = srq ? srq->object.link.number : 0,
	};

	if (write || packet->opcode == IBV_WR_SEND_WITH_IMM)
		completion.flags |= IBV_WC_WITH_IMM;
	else if (packet->opcode == IBV_WR_SEND_WITH_INV)
		completion.flags |= IBV_WC_WITH_INV;
	resp->has_receive = false;
	if (!srq)
		rnic_queue_consume(&resp->queue, resp->queue.head + 1);
	/* An XRC queue may have ended in the middle of its message, and its completion queue with it. */
	if (cq)
		rnic_complete(cq, &completion, packet->flags & RNIC_SOLICITED);
}

void rnic_refuse(struct rnic_qp *qp, const struct rnic_packet *packet, enum rnic_syndrome syndrome,
		   enum ibv_wc_status receive_status)
{
	enum ibv_event_type event = syndrome == RNIC_ACCESS_ERROR ? IBV_EVENT_QP_ACCESS_ERR : IBV_EVENT_QP_REQ_ERR;
	bool local = receive_status == IBV_WC_LOC_PROT_ERR;

	qp->resp.in_message = false;
	if (!rnic_acknowledges(qp) && !local) {
		qp->resp.dropping = true;
		return;
	}
	if (qp->resp.has_receive)
		rnic_receive_done(qp, packet, receive_status, 0, 0);
	else if (rnic_acknowledges(qp))
		rnic_qp_event(qp, event);
	if (rnic_acknowledges(qp))
		rnic_acknowledge(qp, packet->psn, syndrome);
	rnic_to_error(qp);
}

static void not_ready(struct rnic_qp *qp, const struct rnic_packet *packet)
{
	qp->resp.starving = true;
	if (rnic_acknowledges(qp))
		rnic_acknowledge(qp, packet->psn, RNIC_NOT_READY);
	else
		qp->resp.dropping = true;
}

unsigned int rnic_right_of(uint32_t opcode)
{
	switch (opcode) {
	case IBV_WR_RDMA_WRITE:
	case IBV_WR_RDMA_WRITE_WITH_IMM: return IBV_ACCESS_REMOTE_WRITE;
	case IBV_WR_RDMA_READ: return IBV_ACCESS_REMOTE_READ;
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
	case IBV_WR_ATOMIC_CMP_AND_SWP: return IBV_ACCESS_REMOTE_ATOMIC;
	default: return 0;
	}
}

static bool takes_receive(const struct rnic_packet *packet)
{
	if (packet->opcode == IBV_WR_RDMA_WRITE_WITH_IMM)
		return packet->flags & RNIC_LAST;
	return !rnic_right_of(packet->opcode) && packet->flags & RNIC_FIRST;
}

/* What goes before execution; false: it has been answered. */
static bool check(struct rnic_qp *qp, const struct rnic_packet *packet)
{
	struct rnic_responder *resp = &qp->resp;
	unsigned int right = rnic_right_of(packet->opcode);

	if (packet->flags & RNIC_FIRST ? resp->in_message : !resp->in_message || resp->opcode != packet->opcode) {
		rnic_refuse(qp, packet, RNIC_INVALID_REQUEST, IBV_WC_REM_INV_REQ_ERR);
		return false;
	}
	if (right && !(qp->attr.qp_access_flags & right)) {
		rnic_refuse(qp, packet, RNIC_INVALID_REQUEST, IBV_WC_REM_INV_REQ_ERR);
		return false;
	}
	if (!resp->has_receive)
		resp->srqn = packet->srqn;
	if (qp->type == IBV_QPT_XRC_RECV && !rnic_message_srq(qp, packet->srqn)) {
		rnic_refuse(qp, packet, RNIC_INVALID_REQUEST, IBV_WC_REM_INV_REQ_ERR);
		return false;
	}
	if (takes_receive(packet) && !rnic_take_receive(qp)) {
		not_ready(qp, packet);
		return false;
	}
	return true;
}

static uint32_t span_of(const struct rnic_qp *qp, const struct rnic_packet *packet)
{
	if (rnic_right_of(packet->opcode) == IBV_ACCESS_REMOTE_ATOMIC)
		return 1;
	return rnic_packets_of(qp, packet->opcode == IBV_WR_RDMA_READ ? packet->length : packet->bytes);
}

static bool is_answered_later(const struct rnic_packet *packet)
{
	return rnic_right_of(packet->opcode) & (IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC);
}

/* C9-105: what was executed is acknowledged again; reads are read again, an atomic's old result is sent. */
static void duplicate(struct rnic_qp *qp, const struct rnic_packet *packet)
{
	if (packet->opcode == IBV_WR_RDMA_READ) {
		rnic_execute_read(qp, packet);
		return;
	}
	if (is_answered_later(packet)) {
		for (uint32_t i = 0; i < RNIC_MAX_READS; i++)
			if (qp->resp.results[i].valid && qp->resp.results[i].psn == packet->psn) {
				rnic_answer_atomic(qp, packet->psn, qp->resp.results[i].value);
				return;
			}
		return;
	}
	rnic_acknowledge(qp, rnic_psn_add(qp->resp.psn, RNIC_PSN_MASK), RNIC_ACKNOWLEDGED);
}

static void reliable_arrived(struct rnic_qp *qp, const struct rnic_packet *packet)
{
	struct rnic_responder *resp = &qp->resp;
	uint32_t span = span_of(qp, packet);

	if (packet->psn != resp->psn) {
		if (rnic_psn_before(packet->psn, resp->psn)) {
			duplicate(qp, packet);
		} else if (!resp->nak_sent) {
			resp->nak_sent = true;
			rnic_acknowledge(qp, resp->psn, RNIC_BAD_SEQUENCE);
		}
		return;
	}
	resp->nak_sent = false;
	if (!check(qp, packet))
		return;
	resp->psn = rnic_psn_add(resp->psn, span);
	rnic_execute(qp, packet);
	if (qp->state == IBV_QPS_ERR)
		return;
	if (packet->flags & RNIC_LAST && rnic_right_of(packet->opcode) != IBV_ACCESS_REMOTE_WRITE &&
	    packet->opcode != IBV_WR_RDMA_READ && packet->flags & RNIC_FIRST && rnic_is_fault(qp->device, RNIC_SET_REPEAT_SEND) &&
	    check(qp, packet))
		rnic_execute(qp, packet);
	if (!is_answered_later(packet))
		rnic_acknowledge(qp, rnic_psn_add(resp->psn, RNIC_PSN_MASK), RNIC_ACKNOWLEDGED);
}

static void unreliable_arrived(struct rnic_qp *qp, const struct rnic_packet *packet)
{
	struct rnic_responder *resp = &qp->resp;

	/* The first packet of a message begins anew whatever went before; a gap costs the message it is in. */
	if (packet->flags & RNIC_FIRST)
		resp->dropping = resp->in_message = false;
	else if (resp->dropping || packet->psn != resp->psn)
		resp->dropping = true;
	resp->psn = rnic_psn_add(packet->psn, span_of(qp, packet));
	if (!resp->dropping && check(qp, packet))
		rnic_execute(qp, packet);
}

void rnic_request_arrived(struct rnic_qp *qp, const struct rnic_packet *packet)
{
	if (rnic_acknowledges(qp))
		reliable_arrived(qp, packet);
	else
		unreliable_arrived(qp, packet);
}
