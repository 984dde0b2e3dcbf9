/* What a request does at its responder: writes, sends, reads, atomics. */
#include "internal.h"

/* Where a piece of a write goes, or NULL. Of the first piece the whole message's place is checked. */
static struct rnic_mr *write_target(struct rnic_qp *qp, const struct rnic_packet *packet, uint64_t *address)
{
	struct rnic_pd *pd = rnic_message_pd(qp, packet->srqn);
	uint32_t length = packet->flags & RNIC_FIRST ? packet->length : packet->bytes;

	*address = packet->address;
	return pd ? rnic_remote(qp, pd, packet->rkey, address, length, IBV_ACCESS_REMOTE_WRITE) : NULL;
}

static int write_at(struct rnic_mr *mr, uint64_t iova, uint32_t length, const void *data)
{
	struct rnic_context *context = mr->object.context;
	struct rnic_span span = { rnic_mr_address(mr, iova), length };

	return context->sinks->write(context->process, &span, 1, data);
}

/* A device with that fault mixes keys up: of another process if there is one, else any other. */
static struct rnic_mr *foreign(struct rnic_device *device, const struct rnic_mr *mr)
{
	struct rnic_mr *found = NULL;

	for (uint32_t i = 0; i < device->memory.size; i++)
		for (struct rnic_link *link = device->memory.buckets[i]; link; link = link->next) {
			struct rnic_mr *other = rnic_of(link, struct rnic_mr, object.link);

			if (other == mr || other->is_window || !(other->access & IBV_ACCESS_LOCAL_WRITE))
				continue;
			if (!found || other->object.context != mr->object.context)
				found = other;
		}
	return found;
}

static void execute_write(struct rnic_qp *qp, const struct rnic_packet *packet)
{
	uint64_t address;
	struct rnic_mr *mr = packet->length ? write_target(qp, packet, &address) : NULL;
	uint32_t bytes = packet->bytes;

	if (packet->length && !mr) {
		rnic_refuse(qp, packet, RNIC_ACCESS_ERROR, IBV_WC_REM_ACCESS_ERR);
		return;
	}
	if (mr && rnic_is_fault(qp->device, RNIC_SET_FOREIGN_KEY) && foreign(qp->device, mr)) {
		mr = foreign(qp->device, mr);
		address = mr->iova;
		if (bytes > mr->length)
			bytes = (uint32_t)mr->length;
	}
	if (mr && bytes && write_at(mr, address, bytes, packet->data)) {
		rnic_refuse(qp, packet, RNIC_ACCESS_ERROR, IBV_WC_REM_ACCESS_ERR);
		return;
	}
	if (packet->flags & RNIC_LAST && packet->opcode == IBV_WR_RDMA_WRITE_WITH_IMM)
		rnic_receive_done(qp, packet, IBV_WC_SUCCESS, packet->length, 0);
}

static void execute_send(struct rnic_qp *qp, const struct rnic_packet *packet)
{
	struct rnic_responder *resp = &qp->resp;
	struct rnic_pd *pd = rnic_message_pd(qp, packet->srqn);
	enum ibv_wc_status status = IBV_WC_SUCCESS;

	if (packet->length > resp->taken->length) {
		rnic_refuse(qp, packet, RNIC_INVALID_REQUEST, IBV_WC_LOC_LEN_ERR);
		return;
	}
	if (qp->srq || qp->type == IBV_QPT_XRC_RECV)
		pd = rnic_message_srq(qp, packet->srqn)->pd;
	if (packet->bytes)
		status = rnic_scatter(qp->device, pd, resp->taken->sges, resp->taken->num_sge, resp->received, packet->bytes,
				      packet->data);
	if (status != IBV_WC_SUCCESS) {
		rnic_refuse(qp, packet, RNIC_OPERATIONAL_ERROR, IBV_WC_LOC_PROT_ERR);
		return;
	}
	if (packet->flags & RNIC_LAST && packet->opcode == IBV_WR_SEND_WITH_INV && rnic_invalidate(qp, pd, packet->imm)) {
		rnic_refuse(qp, packet, RNIC_INVALID_REQUEST, IBV_WC_LOC_QP_OP_ERR);
		return;
	}
	if (packet->flags & RNIC_LAST)
		rnic_receive_done(qp, packet, IBV_WC_SUCCESS, packet->length, 0);
}

void rnic_execute_read(struct rnic_qp *qp, const struct rnic_packet *packet)
{
	struct rnic_pd *pd = rnic_message_pd(qp, packet->srqn);
	uint64_t address = packet->address;
	struct rnic_reply *reply;

	if (!qp->attr.max_dest_rd_atomic) {
		rnic_refuse(qp, packet, RNIC_INVALID_REQUEST, IBV_WC_REM_INV_REQ_ERR);
		return;
	}
	if (packet->length && (!pd || !rnic_remote(qp, pd, packet->rkey, &address, packet->length, IBV_ACCESS_REMOTE_READ))) {
		rnic_refuse(qp, packet, RNIC_ACCESS_ERROR, IBV_WC_REM_ACCESS_ERR);
		return;
	}
	reply = rnic_reply_new(qp);
	if (!reply)
		return; /* as if it had been lost: it comes again */
	*reply = (struct rnic_reply){ .kind = RNIC_REPLY_READ,
				      .psn = packet->psn,
				      .rkey = packet->rkey,
				      .address = packet->address,
				      .length = packet->length,
				      .srqn = packet->srqn };
}

void rnic_answer_atomic(struct rnic_qp *qp, uint32_t psn, uint64_t value)
{
	struct rnic_reply *reply = rnic_reply_new(qp);

	if (reply)
		*reply = (struct rnic_reply){ .kind = RNIC_REPLY_ATOMIC, .psn = psn, .value = value };
}

static void execute_atomic(struct rnic_qp *qp, const struct rnic_packet *packet)
{
	struct rnic_pd *pd = rnic_message_pd(qp, packet->srqn);
	uint64_t address = packet->address, value, changed;
	struct rnic_mr *mr = pd ? rnic_remote(qp, pd, packet->rkey, &address, 8, IBV_ACCESS_REMOTE_ATOMIC) : NULL;
	struct rnic_context *context = mr ? mr->object.context : NULL;
	struct rnic_span span;

	if (!qp->attr.max_dest_rd_atomic || packet->address & 7) {
		rnic_refuse(qp, packet, RNIC_INVALID_REQUEST, IBV_WC_REM_INV_REQ_ERR);
		return;
	}
	if (mr)
		span = (struct rnic_span){ rnic_mr_address(mr, address), 8 };
	if (!mr || context->sinks->read(context->process, &span, 1, &value)) {
		rnic_refuse(qp, packet, RNIC_ACCESS_ERROR, IBV_WC_REM_ACCESS_ERR);
		return;
	}
	changed = value;
	if (packet->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD)
		changed = value + packet->compare_add;
	else if (value == packet->compare_add)
		changed = packet->swap;
	if (context->sinks->write(context->process, &span, 1, &changed)) {
		rnic_refuse(qp, packet, RNIC_ACCESS_ERROR, IBV_WC_REM_ACCESS_ERR);
		return;
	}
	qp->resp.results[qp->resp.next_result++ % RNIC_MAX_READS] =
		(struct rnic_atomic_result){ .psn = packet->psn, .valid = true, .value = value };
	rnic_answer_atomic(qp, packet->psn, value);
}

void rnic_execute(struct rnic_qp *qp, const struct rnic_packet *packet)
{
	struct rnic_responder *resp = &qp->resp;

	if (packet->flags & RNIC_FIRST) {
		resp->opcode = packet->opcode;
		resp->received = 0;
	}
	resp->in_message = !(packet->flags & RNIC_LAST);
	switch (packet->opcode) {
	case IBV_WR_RDMA_WRITE:
	case IBV_WR_RDMA_WRITE_WITH_IMM: execute_write(qp, packet); break;
	case IBV_WR_RDMA_READ: rnic_execute_read(qp, packet); break;
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
	case IBV_WR_ATOMIC_CMP_AND_SWP: execute_atomic(qp, packet); break;
	default: execute_send(qp, packet); break;
	}
	resp->received += packet->bytes;
}
