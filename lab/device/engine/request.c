/* The requester: takes requests out of a send queue in their order and puts them on the wire in pieces. */
#include "internal.h"

static bool is_read(uint32_t opcode) { return opcode == IBV_WR_RDMA_READ; }

static bool is_atomic(uint32_t opcode)
{
	return opcode == IBV_WR_ATOMIC_FETCH_AND_ADD || opcode == IBV_WR_ATOMIC_CMP_AND_SWP;
}

static bool is_local(uint32_t opcode) { return opcode == IBV_WR_BIND_MW || opcode == IBV_WR_LOCAL_INV; }

enum ibv_wc_opcode rnic_wc_opcode(uint32_t opcode)
{
	switch (opcode) {
	case IBV_WR_RDMA_WRITE:
	case IBV_WR_RDMA_WRITE_WITH_IMM: return IBV_WC_RDMA_WRITE;
	case IBV_WR_RDMA_READ: return IBV_WC_RDMA_READ;
	case IBV_WR_ATOMIC_FETCH_AND_ADD: return IBV_WC_FETCH_ADD;
	case IBV_WR_ATOMIC_CMP_AND_SWP: return IBV_WC_COMP_SWAP;
	case IBV_WR_BIND_MW: return IBV_WC_BIND_MW;
	case IBV_WR_LOCAL_INV: return IBV_WC_LOCAL_INV;
	default: return IBV_WC_SEND;
	}
}

static bool is_allowed(const struct rnic_qp *qp, uint32_t opcode)
{
	switch (opcode) {
	case IBV_WR_SEND:
	case IBV_WR_SEND_WITH_IMM: return true;
	case IBV_WR_RDMA_WRITE:
	case IBV_WR_RDMA_WRITE_WITH_IMM: return qp->type != IBV_QPT_UD;
	case IBV_WR_BIND_MW:
	case IBV_WR_LOCAL_INV: return qp->type != IBV_QPT_UD && qp->device->settings[RNIC_SET_MAX_MW];
	case IBV_WR_SEND_WITH_INV: return rnic_acknowledges(qp) && qp->device->settings[RNIC_SET_MAX_MW];
	case IBV_WR_RDMA_READ: return rnic_acknowledges(qp) && qp->attr.max_rd_atomic;
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
	case IBV_WR_ATOMIC_CMP_AND_SWP:
		return rnic_acknowledges(qp) && qp->attr.max_rd_atomic && qp->device->settings[RNIC_SET_ATOMICS];
	default: return false;
	}
}

/* Copies a request out of memory that its owner may change at any time, and checks what the device relies on. */
enum ibv_wc_status rnic_load(struct rnic_qp *qp, uint32_t counter, struct rnic_request *request)
{
	const struct rnic_send *shared = rnic_queue_at(&qp->req.queue, counter);
	uint64_t length = 0;

	memcpy(&request->wr, shared, sizeof(request->wr));
	request->length = 0;
	if (!is_allowed(qp, request->wr.opcode))
		return IBV_WC_LOC_QP_OP_ERR;
	if (is_local(request->wr.opcode))
		return IBV_WC_SUCCESS;
	if (request->wr.flags & IBV_SEND_INLINE) {
		if (request->wr.bytes > qp->cap.max_inline_data)
			return IBV_WC_LOC_LEN_ERR;
		memcpy(request->data, shared->sges, request->wr.bytes);
		request->length = request->wr.bytes;
		return IBV_WC_SUCCESS;
	}
	if (request->wr.num_sge > qp->cap.max_send_sge)
		return IBV_WC_LOC_QP_OP_ERR;
	memcpy(request->sges, shared->sges, request->wr.num_sge * sizeof(struct rnic_sge));
	for (uint32_t i = 0; i < request->wr.num_sge; i++)
		length += request->sges[i].length;
	if (length > 1u << 31 || (is_atomic(request->wr.opcode) && length < 8))
		return IBV_WC_LOC_LEN_ERR;
	request->length = is_atomic(request->wr.opcode) ? 8 : (uint32_t)length;
	return IBV_WC_SUCCESS;
}

uint32_t rnic_packets_of(const struct rnic_qp *qp, uint32_t bytes)
{
	uint32_t mtu = rnic_mtu_bytes(qp->attr.path_mtu);

	return bytes ? (bytes - 1) / mtu + 1 : 1;
}

static uint32_t outstanding_bytes(const struct rnic_qp *qp)
{
	return rnic_psn_minus(qp->req.psn, qp->req.acked) * rnic_mtu_bytes(qp->attr.path_mtu);
}

/* What must have happened before a request may start. */
static bool may_start(const struct rnic_qp *qp, const struct rnic_request *request)
{
	if (request->wr.flags & IBV_SEND_FENCE && qp->req.reads)
		return false;
	if ((is_read(request->wr.opcode) || is_atomic(request->wr.opcode)) && qp->req.reads >= qp->attr.max_rd_atomic)
		return false;
	return true;
}

static void run_local(struct rnic_qp *qp, struct rnic_sent *sent)
{
	const struct rnic_send *wr = &qp->req.request->wr;
	int error = wr->opcode == IBV_WR_BIND_MW ? rnic_bind(qp, wr) : rnic_invalidate(qp, qp->pd, wr->imm);

	sent->first_psn = sent->last_psn = rnic_psn_add(qp->req.psn, RNIC_PSN_MASK);
	sent->state = RNIC_DONE;
	qp->req.next++;
	qp->req.loaded = false;
	if (error)
		rnic_fail_request(qp, qp->req.next - 1, wr->opcode == IBV_WR_BIND_MW ? IBV_WC_MW_BIND_ERR : IBV_WC_LOC_QP_OP_ERR);
	else
		rnic_retire(qp);
}

static void address(struct rnic_qp *qp, const struct rnic_send *wr, struct rnic_packet *packet)
{
	packet->kind = RNIC_REQUEST;
	packet->transport = (uint8_t)qp->type;
	packet->opcode = (uint8_t)wr->opcode;
	packet->source_qpn = rnic_qpn(qp);
	packet->imm = wr->imm;
	packet->srqn = wr->xrc_srqn;
	if (qp->type == IBV_QPT_UD) {
		memcpy(packet->dgid, wr->ud.route.dgid, 16);
		if (wr->ud.route.sgid_index < RNIC_GIDS)
			memcpy(packet->sgid, qp->device->gids[wr->ud.route.sgid_index].raw, 16);
		packet->qpn = wr->ud.qpn;
		/* A key with its highest bit set is the QP's own (IBTA 10.2.5). */
		packet->qkey = wr->ud.qkey & 0x80000000 ? qp->attr.qkey : wr->ud.qkey;
		packet->flow_label = wr->ud.route.flow_label;
		packet->traffic_class = wr->ud.route.traffic_class;
		packet->hop_limit = wr->ud.route.hop_limit;
		return;
	}
	memcpy(packet->dgid, qp->attr.ah_attr.grh.dgid.raw, 16);
	memcpy(packet->sgid, qp->sgid, 16);
	packet->qpn = qp->attr.dest_qp_num;
	if (is_atomic(wr->opcode)) {
		packet->address = wr->atomic.address;
		packet->rkey = wr->atomic.rkey;
		packet->compare_add = wr->atomic.compare_add;
		packet->swap = wr->atomic.swap;
	} else {
		packet->address = wr->rdma.address;
		packet->rkey = wr->rdma.rkey;
	}
}

/* The first bytes of a message, or those behind what went before; false: they cannot be read. */
static bool fill(struct rnic_qp *qp, struct rnic_packet *packet)
{
	struct rnic_requester *req = &qp->req;
	struct rnic_request *request = req->request;
	unsigned char *staging = qp->device->fabric->staging;
	uint32_t left = request->length - req->offset;
	enum ibv_wc_status status;

	packet->bytes = left < RNIC_PIECE ? left : RNIC_PIECE;
	packet->data = staging;
	if (request->wr.flags & IBV_SEND_INLINE)
		memcpy(staging, request->data, packet->bytes);
	else if ((status = rnic_gather(qp->device, qp->pd, request->sges, request->wr.num_sge, req->offset, packet->bytes,
				       staging)) != IBV_WC_SUCCESS) {
		rnic_fail_request(qp, req->next, status);
		return false;
	}
	if (packet->bytes && rnic_is_fault(qp->device, RNIC_SET_FLIP_BYTE))
		staging[packet->bytes / 2] ^= 0xff;
	return true;
}

static void send_read(struct rnic_qp *qp, struct rnic_sent *sent)
{
	struct rnic_requester *req = &qp->req;
	struct rnic_request *request = req->request;
	struct rnic_packet packet = { .flags = RNIC_FIRST | RNIC_LAST };

	address(qp, &request->wr, &packet);
	/* After a loss only the rest is asked for again: `received` is a multiple of the MTU, or all. */
	packet.psn = req->psn;
	packet.address += sent->received;
	packet.length = request->length - sent->received;
	sent->state = RNIC_SENT;
	sent->awaits_response = true;
	req->reads++;
	req->psn = rnic_psn_add(sent->last_psn, 1);
	req->next++;
	req->loaded = false;
	rnic_transmit(qp->device, &packet);
}

static void send_data(struct rnic_qp *qp, struct rnic_sent *sent)
{
	struct rnic_requester *req = &qp->req;
	struct rnic_request *request = req->request;
	struct rnic_packet packet = { .flags = req->offset ? 0 : RNIC_FIRST, .length = request->length };
	uint32_t counter = req->next;
	bool last;

	if (!fill(qp, &packet))
		return;
	address(qp, &request->wr, &packet);
	packet.address += req->offset;
	packet.psn = req->psn;
	last = req->offset + packet.bytes == request->length;
	if (last)
		packet.flags |= RNIC_LAST | (request->wr.flags & IBV_SEND_SOLICITED ? RNIC_SOLICITED : 0);
	/* Everything is in its place before the piece goes: its acknowledgement may be here before the call returns. */
	sent->state = RNIC_SENT;
	req->offset += packet.bytes;
	req->psn = rnic_psn_add(req->psn, rnic_packets_of(qp, packet.bytes));
	if (last) {
		req->next++;
		req->offset = 0;
		req->loaded = false;
	}
	rnic_transmit(qp->device, &packet);
	if (rnic_acknowledges(qp) || !last || qp->state != IBV_QPS_RTS)
		return;
	/* Nobody answers; it is complete when it has left. */
	req->acked = req->psn;
	rnic_transmit(qp->device, &(struct rnic_packet){ .kind = RNIC_DEPARTED,
							  .transport = (uint8_t)qp->type,
							  .qpn = rnic_qpn(qp),
							  .psn = req->sent[counter & req->queue.mask].first_psn,
							  .counter = counter });
}

/* Of a datagram too long for its port nothing is sent and nothing is said (IBTA C10-93.1.1). */
static bool is_swallowed(struct rnic_qp *qp, struct rnic_sent *sent)
{
	struct rnic_requester *req = &qp->req;

	if (qp->type != IBV_QPT_UD || req->request->length <= rnic_mtu_bytes((enum ibv_mtu)qp->device->settings[RNIC_SET_MTU]))
		return false;
	sent->state = RNIC_DONE;
	req->next++;
	req->loaded = false;
	rnic_retire(qp);
	return true;
}

static void start(struct rnic_qp *qp, struct rnic_sent *sent)
{
	struct rnic_request *request = qp->req.request;
	uint32_t packets = is_atomic(request->wr.opcode) ? 1 : rnic_packets_of(qp, request->length);

	*sent = (struct rnic_sent){ .first_psn = qp->req.psn,
				    .last_psn = rnic_psn_add(qp->req.psn, packets - 1),
				    .length = request->length,
				    .opcode = (uint8_t)request->wr.opcode };
}

/* Loads the request that comes next; false: nothing can be sent of it. */
static bool load_next(struct rnic_qp *qp, struct rnic_sent *sent)
{
	struct rnic_requester *req = &qp->req;
	enum ibv_wc_status status = rnic_load(qp, req->next, req->request);

	/* Gone back to, it keeps the numbers it had. */
	if (req->next == req->started) {
		start(qp, sent);
		req->started++;
	}
	if (status != IBV_WC_SUCCESS) {
		rnic_fail_request(qp, req->next, status);
		return false;
	}
	req->loaded = true;
	return true;
}

static bool may_run(const struct rnic_qp *qp)
{
	const struct rnic_requester *req = &qp->req;

	if (!req->sent || req->failed || req->waiting)
		return false;
	/* Draining, it ends what it has begun. */
	return qp->state == IBV_QPS_RTS || (qp->state == IBV_QPS_SQD && (req->offset || req->next != req->started));
}

bool rnic_send_piece(struct rnic_qp *qp)
{
	struct rnic_requester *req = &qp->req;
	struct rnic_sent *sent;

	if (!may_run(qp))
		return false;
	/* What needed no answer stays done when its neighbours are sent again. */
	while (req->next != req->started && req->sent[req->next & req->queue.mask].state == RNIC_DONE)
		req->next++;
	sent = &req->sent[req->next & req->queue.mask];
	if (!req->loaded && req->next == rnic_queue_produced(&req->queue))
		return false;
	if (!req->loaded && !load_next(qp, sent))
		return true;
	req->blocked = (!req->offset && !may_start(qp, req->request)) || outstanding_bytes(qp) > RNIC_WINDOW;
	if (req->blocked)
		return false;
	if (is_local(req->request->wr.opcode)) {
		run_local(qp, sent);
		return true;
	}
	if (!rnic_wire_ready(qp))
		return false;
	if (is_read(req->request->wr.opcode) || is_atomic(req->request->wr.opcode))
		send_read(qp, sent);
	else if (!is_swallowed(qp, sent))
		send_data(qp, sent);
	if (rnic_acknowledges(qp) && req->acked != req->psn)
		rnic_await(qp);
	return true;
}
