/* One host's device: its GIDs, its port, what it says of itself. */
#include "internal.h"

struct rnic_device *rnic_device_new(struct rnic_fabric *fabric, const char *name, const char *host)
{
	struct rnic_device *device = calloc(1, sizeof(*device));
	uint32_t number = 1;

	if (!device)
		return NULL;
	for (struct rnic_node *node = fabric->devices.next; node != &fabric->devices; node = node->next)
		number++;
	device->fabric = fabric;
	device->name = strdup(name);
	device->host = strdup(host);
	if (!device->name || !device->host) {
		free(device->name);
		free(device->host);
		free(device);
		return NULL;
	}
	for (int i = 0; i < RNIC_SETTINGS; i++)
		device->settings[i] = rnic_setting_standard(i);
	/* Nothing has the same number on two hosts. */
	device->qpns = (struct rnic_numbers){ .next = 17 + (number - 1) * 4983, .step = 1, .mask = 0xffffff };
	device->keys = (struct rnic_numbers){ .next = 0x10 + (number - 1) * 0x9000, .step = 1, .mask = 0xffffff };
	device->srqns = (struct rnic_numbers){ .next = 1 + number * 256, .step = 1, .mask = 0xffffff };
	device->cqns = (struct rnic_numbers){ .next = 1, .step = 1, .mask = 0xffffff };
	device->wire_event.fire = rnic_wire_free;
	rnic_list_init(&device->contexts);
	rnic_list_init(&device->domains);
	rnic_list_init(&device->groups);
	rnic_list_init(&device->waiting);
	rnic_list_add(&fabric->devices, &device->node);
	return device;
}

static uint32_t gid_slot(const uint8_t gid[16])
{
	uint32_t words[4];

	memcpy(words, gid, sizeof(words));
	return (words[0] * 31 ^ words[1] * 17 ^ words[2] ^ words[3] * 2654435769u) >> 16 & (RNIC_GID_SLOTS - 1);
}

static const uint8_t no_gid[16];

/* Where two hosts have the same, as while an address moves, the one that was made first is meant. */
static void index_gids(struct rnic_fabric *fabric)
{
	memset(fabric->gids, 0, sizeof(fabric->gids));
	for (struct rnic_node *node = fabric->devices.next; node != &fabric->devices; node = node->next) {
		struct rnic_device *device = rnic_of(node, struct rnic_device, node);

		for (uint64_t i = 0; i < device->settings[RNIC_SET_GID_TABLE]; i++) {
			uint32_t slot = gid_slot(device->gids[i].raw), tried = 0;

			if (!memcmp(device->gids[i].raw, no_gid, 16))
				continue;
			while (fabric->gids[slot].device && memcmp(fabric->gids[slot].raw, device->gids[i].raw, 16) &&
			       tried++ < RNIC_GID_SLOTS)
				slot = (slot + 1) & (RNIC_GID_SLOTS - 1);
			if (!fabric->gids[slot].device) {
				memcpy(fabric->gids[slot].raw, device->gids[i].raw, 16);
				fabric->gids[slot].device = device;
			}
		}
	}
}

static void forget_part(struct rnic_device *device, const struct rnic_device *other)
{
	for (int i = 0; i < device->parted_count; i++)
		if (device->parted[i] == other)
			device->parted[i--] = device->parted[--device->parted_count];
}

void rnic_device_free(struct rnic_device *device)
{
	struct rnic_fabric *fabric = device->fabric;

	while (!rnic_list_empty(&device->contexts))
		rnic_close(rnic_of(device->contexts.next, struct rnic_context, node));
	rnic_list_remove(&device->node);
	index_gids(fabric);
	rnic_event_cancel(fabric, &device->wire_event);
	/* A packet remembers where it came from only to be counted. */
	for (uint32_t i = 1; i <= fabric->events; i++)
		rnic_packet_forget(fabric->heap[i], device);
	for (struct rnic_node *node = fabric->devices.next; node != &fabric->devices; node = node->next)
		forget_part(rnic_of(node, struct rnic_device, node), device);
	while (device->faults) {
		struct rnic_fault_point *fault = device->faults;

		device->faults = fault->next;
		free(fault);
	}
	rnic_table_free(&device->qps);
	rnic_table_free(&device->memory);
	rnic_table_free(&device->srqs);
	rnic_table_free(&device->cqs);
	free(device->qpns.freed);
	free(device->keys.freed);
	free(device->srqns.freed);
	free(device->cqns.freed);
	free(device->parted);
	free(device->name);
	free(device->host);
	free(device);
}

static void tell_all(struct rnic_device *device, enum ibv_event_type type, uint64_t element)
{
	for (struct rnic_node *node = device->contexts.next; node != &device->contexts; node = node->next) {
		struct rnic_context *context = rnic_of(node, struct rnic_context, node);

		context->sinks->async_event(context->process, type, RNIC_KINDS, element);
	}
}

int rnic_gid_get(const struct rnic_device *device, int index, uint8_t gid[16], int *type, uint32_t *ifindex)
{
	if (index < 0 || (uint64_t)index >= device->settings[RNIC_SET_GID_TABLE])
		return EINVAL;
	memcpy(gid, device->gids[index].raw, 16);
	if (type)
		*type = device->gids[index].type;
	if (ifindex)
		*ifindex = device->gids[index].ifindex;
	return 0;
}

struct rnic_device *rnic_device_of(struct rnic_fabric *fabric, const uint8_t gid[16])
{
	uint32_t slot = gid_slot(gid);

	for (uint32_t tried = 0; tried < RNIC_GID_SLOTS && fabric->gids[slot].device; tried++) {
		if (!memcmp(fabric->gids[slot].raw, gid, 16))
			return fabric->gids[slot].device;
		slot = (slot + 1) & (RNIC_GID_SLOTS - 1);
	}
	return NULL;
}

int rnic_gid_set(struct rnic_device *device, int index, const uint8_t gid[16], int type, uint32_t ifindex)
{
	struct rnic_gid *own;

	if (index < 0 || (uint64_t)index >= device->settings[RNIC_SET_GID_TABLE])
		return EINVAL;
	own = &device->gids[index];
	if (!memcmp(own->raw, gid, 16) && own->type == type && own->ifindex == ifindex)
		return 0;
	memcpy(own->raw, gid, 16);
	own->type = type;
	own->ifindex = ifindex;
	index_gids(device->fabric);
	tell_all(device, IBV_EVENT_GID_CHANGE, 1);
	return 0;
}

void rnic_port(struct rnic_device *device, bool up)
{
	if (device->port_down == !up)
		return;
	device->port_down = !up;
	tell_all(device, up ? IBV_EVENT_PORT_ACTIVE : IBV_EVENT_PORT_ERR, 1);
}

static void part(struct rnic_device *one, struct rnic_device *other)
{
	struct rnic_device **parted = realloc(one->parted, (size_t)(one->parted_count + 1) * sizeof(struct rnic_device *));

	if (!parted)
		return;
	one->parted = parted;
	parted[one->parted_count++] = other;
}

void rnic_part(struct rnic_device *one, struct rnic_device *other, bool parted)
{
	forget_part(one, other);
	forget_part(other, one);
	if (parted) {
		part(one, other);
		part(other, one);
	}
}

bool rnic_reachable(const struct rnic_device *from, const struct rnic_device *to)
{
	if (from->port_down || to->port_down)
		return false;
	for (int i = 0; i < from->parted_count; i++)
		if (from->parted[i] == to)
			return false;
	return true;
}

void rnic_numbers(struct rnic_device *device, uint32_t qpn, uint32_t key)
{
	if (qpn) {
		device->qpns.next = qpn;
		device->qpns.count = 0;
	}
	if (key) {
		device->keys.next = key >> 8;
		device->keys.count = 0;
	}
}

uint64_t rnic_count(const struct rnic_device *device, const char *what)
{
	static const char *const names[RNIC_COUNTERS] = {
		[RNIC_OVERFLOWS] = "overflows", [RNIC_ERRORS] = "errors", [RNIC_EXECUTED] = "executed",
		[RNIC_LOST] = "lost",		[RNIC_BYTES] = "bytes",	  [RNIC_IN_FLIGHT] = "in_flight",
		[RNIC_RETRIES] = "retries",
	};

	for (int i = 0; i < RNIC_COUNTERS; i++)
		if (!strcmp(names[i], what))
			return device->counters[i];
	if (!strcmp(what, "qps"))
		return device->qps.count;
	if (!strcmp(what, "mrs"))
		return device->memory.count;
	if (!strcmp(what, "cqs"))
		return device->cqs.count;
	if (!strcmp(what, "srqs"))
		return device->srqs.count;
	return UINT64_MAX;
}

void rnic_query_device(const struct rnic_device *device, struct ibv_device_attr *attr)
{
	const uint64_t *settings = device->settings;

	*attr = (struct ibv_device_attr){
		.max_mr_size = settings[RNIC_SET_MAX_MR_SIZE],
		.page_size_cap = 0xfffff000,
		.vendor_id = (uint32_t)settings[RNIC_SET_VENDOR],
		.max_qp = (int)settings[RNIC_SET_MAX_QP],
		.max_qp_wr = (int)settings[RNIC_SET_MAX_QP_WR],
		.device_cap_flags = IBV_DEVICE_BAD_PKEY_CNTR | IBV_DEVICE_BAD_QKEY_CNTR | IBV_DEVICE_UD_AV_PORT_ENFORCE |
				    IBV_DEVICE_CURR_QP_STATE_MOD | IBV_DEVICE_RC_RNR_NAK_GEN | IBV_DEVICE_SYS_IMAGE_GUID |
				    IBV_DEVICE_SRQ_RESIZE | IBV_DEVICE_PORT_ACTIVE_EVENT,
		.max_sge = (int)settings[RNIC_SET_MAX_SGE],
		.max_sge_rd = (int)settings[RNIC_SET_MAX_SGE],
		.max_cq = (int)settings[RNIC_SET_MAX_CQ],
		.max_cqe = (int)settings[RNIC_SET_MAX_CQE],
		.max_mr = (int)settings[RNIC_SET_MAX_MR],
		.max_pd = (int)settings[RNIC_SET_MAX_PD],
		.max_qp_rd_atom = (int)settings[RNIC_SET_MAX_RD_ATOM],
		.max_qp_init_rd_atom = (int)settings[RNIC_SET_MAX_INIT_RD_ATOM],
		.max_res_rd_atom = (int)(settings[RNIC_SET_MAX_RD_ATOM] * settings[RNIC_SET_MAX_QP] > INT32_MAX ?
						 INT32_MAX :
						 settings[RNIC_SET_MAX_RD_ATOM] * settings[RNIC_SET_MAX_QP]),
		.atomic_cap = settings[RNIC_SET_ATOMICS] ? IBV_ATOMIC_HCA : IBV_ATOMIC_NONE,
		.max_mw = (int)settings[RNIC_SET_MAX_MW],
		.max_mcast_grp = (int)settings[RNIC_SET_MAX_GROUPS],
		.max_mcast_qp_attach = 56,
		.max_total_mcast_qp_attach = (int)settings[RNIC_SET_MAX_GROUPS] * 56,
		.max_ah = (int)settings[RNIC_SET_MAX_AH],
		.max_srq = (int)settings[RNIC_SET_MAX_SRQ],
		.max_srq_wr = settings[RNIC_SET_MAX_SRQ] ? (int)settings[RNIC_SET_MAX_SRQ_WR] : 0,
		.max_srq_sge = settings[RNIC_SET_MAX_SRQ] ? (int)settings[RNIC_SET_MAX_SGE] : 0,
		.max_pkeys = 1,
		.local_ca_ack_delay = 15,
		.phys_port_cnt = 1,
	};
	if (settings[RNIC_SET_MAX_MW])
		attr->device_cap_flags |= IBV_DEVICE_MEM_WINDOW | IBV_DEVICE_MEM_WINDOW_TYPE_2B |
					  IBV_DEVICE_MEM_MGT_EXTENSIONS;
	if (settings[RNIC_SET_MAX_XRCD])
		attr->device_cap_flags |= IBV_DEVICE_XRC;
}

void rnic_query_port(const struct rnic_device *device, struct ibv_port_attr *attr)
{
	*attr = (struct ibv_port_attr){
		.state = device->port_down ? IBV_PORT_DOWN : IBV_PORT_ACTIVE,
		.max_mtu = IBV_MTU_4096,
		.active_mtu = (enum ibv_mtu)device->settings[RNIC_SET_MTU],
		.gid_tbl_len = (int)device->settings[RNIC_SET_GID_TABLE],
		.port_cap_flags = IBV_PORT_CM_SUP,
		.max_msg_sz = 1u << 31,
		.pkey_tbl_len = 1,
		.active_width = 2,
		.active_speed = 4,
		.phys_state = device->port_down ? 3 : 5,
		.link_layer = IBV_LINK_LAYER_ETHERNET,
		.flags = IBV_QPF_GRH_REQUIRED,
	};
}
