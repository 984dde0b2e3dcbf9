/* Datagrams: who hears them, and the header that stands in front of them. Multicast groups. */
#include "internal.h"

struct group {
	struct rnic_node node; /* of the device */
	uint8_t gid[16];
	struct rnic_node members;
};

struct member {
	struct rnic_node of_group, of_qp;
	struct group *group;
	struct rnic_qp *qp;
};

static bool is_ipv4(const uint8_t gid[16])
{
	static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };

	return !memcmp(gid, prefix, sizeof(prefix));
}

static void ipv4_header(const struct rnic_packet *packet, uint8_t *grh)
{
	uint8_t *ip = grh + 20;
	uint32_t sum = 0, length = packet->bytes + 20 + 8 + 12 + 8 + 4; /* IP, UDP, BTH, DETH, ICRC */

	ip[0] = 0x45;
	ip[1] = packet->traffic_class;
	ip[2] = (uint8_t)(length >> 8);
	ip[3] = (uint8_t)length;
	ip[6] = 0x40; /* not to be fragmented */
	ip[8] = packet->hop_limit;
	ip[9] = 17;
	memcpy(ip + 12, packet->sgid + 12, 4);
	memcpy(ip + 16, packet->dgid + 12, 4);
	for (int i = 0; i < 20; i += 2)
		sum += (uint32_t)ip[i] << 8 | ip[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~((sum & 0xffff) + (sum >> 16));
	ip[10] = (uint8_t)(sum >> 8);
	ip[11] = (uint8_t)sum;
}

/* What RoCE v2 leaves in the first 40 bytes: an IPv6 header, or an IPv4 header in the last 20 of them. */
static void header(const struct rnic_packet *packet, uint8_t grh[RNIC_GRH_BYTES])
{
	uint32_t length = packet->bytes + 8 + 12 + 8 + 4;

	memset(grh, 0, RNIC_GRH_BYTES);
	if (is_ipv4(packet->sgid)) {
		ipv4_header(packet, grh);
		return;
	}
	grh[0] = (uint8_t)(0x60 | packet->traffic_class >> 4);
	grh[1] = (uint8_t)(packet->traffic_class << 4 | (packet->flow_label >> 16 & 0xf));
	grh[2] = (uint8_t)(packet->flow_label >> 8);
	grh[3] = (uint8_t)packet->flow_label;
	grh[4] = (uint8_t)(length >> 8);
	grh[5] = (uint8_t)length;
	grh[6] = 17;
	grh[7] = packet->hop_limit;
	memcpy(grh + 8, packet->sgid, 16);
	memcpy(grh + 24, packet->dgid, 16);
}

void rnic_datagram_arrived(struct rnic_qp *qp, const struct rnic_packet *packet)
{
	struct rnic_taken *taken = qp->resp.taken;
	struct rnic_pd *pd = qp->srq ? qp->srq->pd : qp->pd;
	uint8_t grh[RNIC_GRH_BYTES];
	enum ibv_wc_status status;

	if (packet->qkey != qp->attr.qkey || !rnic_take_receive(qp)) {
		qp->device->counters[RNIC_LOST]++;
		return;
	}
	/* Too long for its receive: dropped, and the receive stays (as rxe: class D). */
	if (packet->bytes + RNIC_GRH_BYTES > taken->length) {
		qp->device->counters[RNIC_LOST]++;
		return;
	}
	header(packet, grh);
	status = rnic_scatter(qp->device, pd, taken->sges, taken->num_sge, 0, RNIC_GRH_BYTES, grh);
	if (status == IBV_WC_SUCCESS && packet->bytes)
		status = rnic_scatter(qp->device, pd, taken->sges, taken->num_sge, RNIC_GRH_BYTES, packet->bytes, packet->data);
	rnic_receive_done(qp, packet, status, packet->bytes + RNIC_GRH_BYTES, IBV_WC_GRH);
	if (status != IBV_WC_SUCCESS)
		rnic_to_error(qp);
	else if (rnic_is_fault(qp->device, RNIC_SET_REPEAT_SEND))
		rnic_datagram_arrived(qp, packet);
}

static struct group *find_group(const struct rnic_device *device, const uint8_t gid[16])
{
	for (struct rnic_node *node = device->groups.next; node != &device->groups; node = node->next) {
		struct group *group = rnic_of(node, struct group, node);

		if (!memcmp(group->gid, gid, 16))
			return group;
	}
	return NULL;
}

static struct member *find_member(const struct rnic_qp *qp, const uint8_t gid[16])
{
	for (struct rnic_node *node = qp->groups.next; node != &qp->groups; node = node->next) {
		struct member *member = rnic_of(node, struct member, of_qp);

		if (!memcmp(member->group->gid, gid, 16))
			return member;
	}
	return NULL;
}

/* Every member on every host that can be reached hears it, but for the QP that sent it. */
void rnic_multicast(struct rnic_fabric *fabric, const struct rnic_packet *packet)
{
	for (struct rnic_node *node = fabric->devices.next; node != &fabric->devices; node = node->next) {
		struct rnic_device *device = rnic_of(node, struct rnic_device, node);
		struct group *group = rnic_reachable(packet->from, device) ? find_group(device, packet->dgid) : NULL;

		if (!group)
			continue;
		for (struct rnic_node *at = group->members.next, *next; at != &group->members; at = next) {
			struct rnic_qp *qp = rnic_of(at, struct member, of_group)->qp;

			next = at->next;
			if ((device == packet->from && rnic_qpn(qp) == packet->source_qpn) || qp->state < IBV_QPS_RTR ||
			    qp->state > IBV_QPS_SQE)
				continue;
			rnic_datagram_arrived(qp, packet);
		}
	}
}

int rnic_attach(struct rnic_context *context, uint32_t handle, const uint8_t gid[16], uint16_t lid)
{
	struct rnic_device *device = context->device;
	struct rnic_qp *qp = rnic_qp_find(context, handle);
	struct group *group;
	struct member *member;

	(void)lid;
	if (!qp || qp->type != IBV_QPT_UD || gid[0] != 0xff)
		return EINVAL;
	if (find_member(qp, gid))
		return 0;
	group = find_group(device, gid);
	member = calloc(1, sizeof(*member));
	if (!group) {
		group = device->group_count < device->settings[RNIC_SET_MAX_GROUPS] ? calloc(1, sizeof(*group)) : NULL;
		if (group) {
			device->group_count++;
			memcpy(group->gid, gid, 16);
			rnic_list_init(&group->members);
			rnic_list_add(&device->groups, &group->node);
		}
	}
	if (!group || !member) {
		free(member);
		return ENOMEM;
	}
	member->group = group;
	member->qp = qp;
	rnic_list_add(&group->members, &member->of_group);
	rnic_list_add(&qp->groups, &member->of_qp);
	return 0;
}

static void leave(struct member *member)
{
	rnic_list_remove(&member->of_group);
	rnic_list_remove(&member->of_qp);
	if (rnic_list_empty(&member->group->members)) {
		rnic_list_remove(&member->group->node);
		member->qp->device->group_count--;
		free(member->group);
	}
	free(member);
}

int rnic_detach(struct rnic_context *context, uint32_t handle, const uint8_t gid[16], uint16_t lid)
{
	struct rnic_qp *qp = rnic_qp_find(context, handle);
	struct member *member = qp ? find_member(qp, gid) : NULL;

	(void)lid;
	if (!member)
		return EINVAL;
	leave(member);
	return 0;
}

void rnic_leave_groups(struct rnic_qp *qp)
{
	while (!rnic_list_empty(&qp->groups))
		leave(rnic_of(qp->groups.next, struct member, of_qp));
}
