/* The wires between hosts: when a piece leaves, whether it arrives, when, and at whom. */
#include "internal.h"

/* A wire is filled so far ahead: long enough that small pieces do not each wait for a timer. */
#define AHEAD_NS 100000u

struct in_flight {
	struct rnic_packet packet;
	unsigned char data[];
};

static bool has_room(const struct rnic_device *device)
{
	return device->wire_free <= device->fabric->time + AHEAD_NS;
}

bool rnic_wire_ready(struct rnic_qp *qp)
{
	struct rnic_device *device = qp->device;

	if (qp->granted || (has_room(device) && rnic_list_empty(&device->waiting)))
		return true;
	/* Behind those who wait already: each gets one piece in its turn. */
	rnic_list_remove(&qp->run);
	rnic_list_add(&device->waiting, &qp->run);
	if (!device->wire_event.place)
		rnic_event_arm(device->fabric, &device->wire_event, device->wire_free - AHEAD_NS);
	return false;
}

void rnic_wire_free(struct rnic_fabric *fabric, struct rnic_event *event)
{
	struct rnic_device *device = rnic_of(event, struct rnic_device, wire_event);

	while (!rnic_list_empty(&device->waiting) && has_room(device)) {
		struct rnic_qp *qp = rnic_of(device->waiting.next, struct rnic_qp, run);

		rnic_list_remove(&qp->run);
		qp->granted = true;
		if (rnic_reply_piece(qp) || rnic_send_piece(qp))
			rnic_runnable(qp);
		qp->granted = false;
	}
	if (!rnic_list_empty(&device->waiting) && !event->place)
		rnic_event_arm(fabric, event, device->wire_free - AHEAD_NS);
}

/* A connected QP hears only the other end of its connection; a RoCE device knows that by the addresses. */
static bool is_connected(const struct rnic_qp *qp, const struct rnic_packet *packet)
{
	return !memcmp(qp->attr.ah_attr.grh.dgid.raw, packet->sgid, 16) && !memcmp(qp->sgid, packet->dgid, 16);
}

static bool is_receiving(const struct rnic_qp *qp)
{
	return qp->state >= IBV_QPS_RTR && qp->state <= IBV_QPS_SQE;
}

static enum ibv_qp_type answering_type(const struct rnic_packet *packet)
{
	if (packet->transport == IBV_QPT_XRC_SEND)
		return IBV_QPT_XRC_RECV;
	return packet->transport == IBV_QPT_XRC_RECV ? IBV_QPT_XRC_SEND : (enum ibv_qp_type)packet->transport;
}

static void departed(struct rnic_device *device, const struct rnic_packet *packet)
{
	struct rnic_link *link = rnic_table_find(&device->qps, packet->qpn);
	struct rnic_qp *qp = link ? rnic_of(link, struct rnic_qp, link) : NULL;
	struct rnic_requester *req = qp ? &qp->req : NULL;
	struct rnic_sent *sent;

	if (!qp || !req->sent || packet->counter - req->queue.head >= req->next - req->queue.head)
		return;
	sent = &req->sent[packet->counter & req->queue.mask];
	if (sent->state != RNIC_SENT || sent->first_psn != packet->psn)
		return;
	sent->state = RNIC_DONE;
	rnic_retire(qp);
}

static void unheard(const struct rnic_packet *packet)
{
	struct rnic_link *link = NULL;

	packet->from->counters[RNIC_LOST]++;
	if (packet->from->settings[RNIC_SET_WAIT_FOR_PEER] && packet->kind == RNIC_REQUEST)
		link = rnic_table_find(&packet->from->qps, packet->source_qpn);
	if (link)
		rnic_unheard(rnic_of(link, struct rnic_qp, link), packet);
}

static void deliver(struct rnic_fabric *fabric, const struct rnic_packet *packet)
{
	struct rnic_device *device;
	struct rnic_link *link;
	struct rnic_qp *qp;

	if (!packet->from)
		return;
	if (packet->kind == RNIC_DEPARTED) {
		departed(packet->from, packet);
		return;
	}
	if (packet->transport == IBV_QPT_UD && packet->dgid[0] == 0xff) {
		rnic_multicast(fabric, packet);
		return;
	}
	device = rnic_device_of(fabric, packet->dgid);
	link = device && rnic_reachable(packet->from, device) ? rnic_table_find(&device->qps, packet->qpn) : NULL;
	qp = link ? rnic_of(link, struct rnic_qp, link) : NULL;
	if (!qp || !is_receiving(qp) || qp->type != answering_type(packet) ||
	    (qp->type != IBV_QPT_UD && !is_connected(qp, packet))) {
		unheard(packet);
		return;
	}
	switch (packet->kind) {
	case RNIC_REQUEST:
		if (qp->type == IBV_QPT_UD)
			rnic_datagram_arrived(qp, packet);
		else
			rnic_request_arrived(qp, packet);
		break;
	case RNIC_ACK: rnic_acknowledged(qp, packet); break;
	case RNIC_READ_DATA: rnic_read_arrived(qp, packet); break;
	case RNIC_ATOMIC_VALUE: rnic_atomic_arrived(qp, packet); break;
	default: break;
	}
}

static void arrived(struct rnic_fabric *fabric, struct rnic_event *event)
{
	struct in_flight *flight = rnic_of(event, struct in_flight, packet.event);

	if (flight->packet.from)
		flight->packet.from->counters[RNIC_IN_FLIGHT] -= flight->packet.bytes;
	deliver(fabric, &flight->packet);
	free(flight);
}

void rnic_packet_forget(struct rnic_event *event, const struct rnic_device *device)
{
	if (event->fire == arrived && rnic_of(event, struct in_flight, packet.event)->packet.from == device)
		rnic_of(event, struct in_flight, packet.event)->packet.from = NULL;
}

static bool in_a_million(struct rnic_device *device, enum rnic_setting setting)
{
	uint64_t share = device->settings[setting];

	return share && rnic_random(device->fabric, 1000000) < share;
}

static bool is_lost(struct rnic_device *from, const struct rnic_packet *packet)
{
	if (packet->kind == RNIC_DEPARTED)
		return false;
	switch (packet->transport) {
	case IBV_QPT_UC: return in_a_million(from, RNIC_SET_LOSS_UC);
	case IBV_QPT_UD: return in_a_million(from, RNIC_SET_LOSS_UD);
	default: return in_a_million(from, RNIC_SET_LOSS_RC);
	}
}

static uint64_t lateness(struct rnic_device *from, const struct rnic_packet *packet)
{
	enum rnic_setting setting = packet->transport == IBV_QPT_UC ? RNIC_SET_REORDER_UC : RNIC_SET_REORDER_UD;

	if (packet->kind == RNIC_DEPARTED || (packet->transport != IBV_QPT_UC && packet->transport != IBV_QPT_UD))
		return 0;
	return in_a_million(from, setting) ? from->settings[RNIC_SET_REORDER_DELAY] : 0;
}

uint64_t rnic_transmit(struct rnic_device *from, const struct rnic_packet *packet)
{
	struct rnic_fabric *fabric = from->fabric;
	uint64_t bandwidth = from->settings[RNIC_SET_BANDWIDTH];
	uint64_t leaves = fabric->time, arrives;
	struct in_flight *flight;

	if (from->wire_free > leaves)
		leaves = from->wire_free;
	if (bandwidth)
		leaves += packet->bytes * 1000000000ull / bandwidth;
	if (packet->kind != RNIC_DEPARTED) {
		from->counters[RNIC_BYTES] += packet->bytes;
		from->wire_free = leaves;
	}
	if (is_lost(from, packet)) {
		from->counters[RNIC_LOST]++;
		return leaves;
	}
	arrives = leaves + lateness(from, packet);
	if (packet->kind != RNIC_DEPARTED)
		arrives += from->settings[RNIC_SET_LATENCY];
	if (arrives == fabric->time) {
		struct rnic_packet here = *packet;

		here.from = from;
		deliver(fabric, &here);
		return leaves;
	}
	flight = malloc(sizeof(*flight) + packet->bytes);
	if (!flight) {
		/* A network may lose what it has no room for. */
		from->counters[RNIC_LOST]++;
		return leaves;
	}
	flight->packet = *packet;
	flight->packet.from = from;
	flight->packet.event = (struct rnic_event){ .fire = arrived };
	flight->packet.data = flight->data;
	if (packet->bytes && packet->data)
		memcpy(flight->data, packet->data, packet->bytes);
	from->counters[RNIC_IN_FLIGHT] += packet->bytes;
	rnic_event_arm(fabric, &flight->packet.event, arrives);
	return leaves;
}
