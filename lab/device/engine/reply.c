/* What a responder sends back: acknowledgements, results of atomics, the data of reads; in the order of the requests. */
#include "internal.h"

static void to_requester(struct rnic_qp *qp, struct rnic_packet *packet)
{
	memcpy(packet->dgid, qp->attr.ah_attr.grh.dgid.raw, 16);
	memcpy(packet->sgid, qp->sgid, 16);
	packet->transport = (uint8_t)qp->type;
	packet->qpn = qp->attr.dest_qp_num;
	packet->source_qpn = rnic_qpn(qp);
	rnic_transmit(qp->device, packet);
}

static void send_ack(struct rnic_qp *qp, uint32_t psn, uint8_t syndrome)
{
	struct rnic_packet packet = { .kind = RNIC_ACK, .psn = psn, .syndrome = syndrome, .timer = qp->attr.min_rnr_timer };

	to_requester(qp, &packet);
}

struct rnic_reply *rnic_reply_new(struct rnic_qp *qp)
{
	struct rnic_responder *resp = &qp->resp;

	if (!resp->replies)
		resp->replies = calloc(RNIC_REPLIES, sizeof(*resp->replies));
	if (!resp->replies || resp->reply_tail - resp->reply_head == RNIC_REPLIES)
		return NULL;
	rnic_runnable(qp);
	return &resp->replies[resp->reply_tail++ % RNIC_REPLIES];
}

void rnic_acknowledge(struct rnic_qp *qp, uint32_t psn, enum rnic_syndrome syndrome)
{
	struct rnic_responder *resp = &qp->resp;
	struct rnic_reply *reply;

	if (resp->reply_head == resp->reply_tail) {
		send_ack(qp, psn, (uint8_t)syndrome);
		return;
	}
	/* One acknowledgement speaks for all before it. */
	reply = &resp->replies[(resp->reply_tail - 1) % RNIC_REPLIES];
	if (reply->kind != RNIC_REPLY_ACK || reply->syndrome != RNIC_ACKNOWLEDGED || syndrome != RNIC_ACKNOWLEDGED)
		reply = rnic_reply_new(qp);
	if (reply)
		*reply = (struct rnic_reply){ .kind = RNIC_REPLY_ACK, .psn = psn, .syndrome = (uint8_t)syndrome };
}

static bool read_piece(struct rnic_qp *qp, struct rnic_reply *reply)
{
	struct rnic_fabric *fabric = qp->device->fabric;
	struct rnic_pd *pd = rnic_message_pd(qp, reply->srqn);
	uint32_t left = reply->length - reply->offset;
	struct rnic_packet packet = { .kind = RNIC_READ_DATA, .bytes = left < RNIC_PIECE ? left : RNIC_PIECE };
	uint64_t address = reply->address + reply->offset;
	/* Its rights may have been taken back while it was read. */
	struct rnic_mr *mr = packet.bytes && pd ?
				     rnic_remote(qp, pd, reply->rkey, &address, packet.bytes, IBV_ACCESS_REMOTE_READ) :
				     NULL;

	if (packet.bytes) {
		struct rnic_span span = { mr ? rnic_mr_address(mr, address) : 0, packet.bytes };
		struct rnic_context *context = mr ? mr->object.context : NULL;

		if (!mr || context->sinks->read(context->process, &span, 1, fabric->staging))
			return false;
		if (rnic_is_fault(qp->device, RNIC_SET_FLIP_BYTE))
			fabric->staging[packet.bytes / 2] ^= 0xff;
	}
	packet.data = fabric->staging;
	packet.psn = rnic_psn_add(reply->psn, reply->offset / rnic_mtu_bytes(qp->attr.path_mtu));
	reply->offset += packet.bytes;
	/* Out of the queue before it goes: the requester may send the next request at once. */
	if (reply->offset == reply->length)
		qp->resp.reply_head++;
	to_requester(qp, &packet);
	return true;
}

bool rnic_reply_piece(struct rnic_qp *qp)
{
	struct rnic_responder *resp = &qp->resp;
	struct rnic_reply reply;

	if (resp->reply_head == resp->reply_tail || !rnic_wire_ready(qp))
		return false;
	reply = resp->replies[resp->reply_head % RNIC_REPLIES];
	switch (reply.kind) {
	case RNIC_REPLY_ACK:
		resp->reply_head++;
		send_ack(qp, reply.psn, reply.syndrome);
		return true;
	case RNIC_REPLY_ATOMIC:
		resp->reply_head++;
		to_requester(qp, &(struct rnic_packet){ .kind = RNIC_ATOMIC_VALUE,
							 .psn = reply.psn,
							 .bytes = sizeof(reply.value),
							 .data = (const unsigned char *)&reply.value });
		return true;
	default:
		if (read_piece(qp, &resp->replies[resp->reply_head % RNIC_REPLIES]))
			return true;
		send_ack(qp, rnic_psn_add(reply.psn, reply.offset / rnic_mtu_bytes(qp->attr.path_mtu)), RNIC_ACCESS_ERROR);
		rnic_qp_event(qp, IBV_EVENT_QP_ACCESS_ERR);
		rnic_to_error(qp);
		return true;
	}
}
