/* Questions about a device and its ports. */
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "export.h"
#include "soft.h"

EXPORT int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *attr)
{
	struct rnic_call call = { .name = CALL_QUERY_DEVICE };
	int error = device_link_call(soft_link(context, "query_device"), &call);

	if (error)
		return error;
	*attr = call.device_attr;
	attr->node_guid = attr->sys_image_guid = ibv_get_device_guid(context->device);
	strcpy(attr->fw_ver, "0.0.0");
	return 0;
}

/* Of the extensions a software device has a clock of nanoseconds and some memory. */
static int query_device_ex(struct ibv_context *context, const struct ibv_query_device_ex_input *input,
			   struct ibv_device_attr_ex *attr, size_t size)
{
	struct ibv_device_attr_ex all = { .completion_timestamp_mask = UINT64_MAX, .hca_core_clock = 1000000, .max_dm_size = SOFT_MAX_DM };
	int error;

	if (input && input->comp_mask)
		return EINVAL;
	if (size < sizeof(all.orig_attr))
		return EOPNOTSUPP;
	if ((error = ibv_query_device(context, &all.orig_attr)))
		return error;
	if (soft_link(context, "query_device_ex")->ways & RNIC_ON_DEMAND) {
		const uint32_t all_ways = IBV_ODP_SUPPORT_SEND | IBV_ODP_SUPPORT_RECV | IBV_ODP_SUPPORT_WRITE | IBV_ODP_SUPPORT_READ |
					  IBV_ODP_SUPPORT_ATOMIC | IBV_ODP_SUPPORT_SRQ_RECV;

		all.odp_caps.general_caps = IBV_ODP_SUPPORT | IBV_ODP_SUPPORT_IMPLICIT;
		all.odp_caps.per_transport_caps.rc_odp_caps = all_ways;
		all.odp_caps.per_transport_caps.uc_odp_caps = all_ways & ~(uint32_t)(IBV_ODP_SUPPORT_READ | IBV_ODP_SUPPORT_ATOMIC);
		all.odp_caps.per_transport_caps.ud_odp_caps = IBV_ODP_SUPPORT_SEND | IBV_ODP_SUPPORT_RECV | IBV_ODP_SUPPORT_SRQ_RECV;
	}
	all.phys_port_cnt_ex = all.orig_attr.phys_port_cnt;
	memset(attr, 0, size);
	memcpy(attr, &all, size < sizeof(all) ? size : sizeof(all));
	return 0;
}

static int query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr, size_t size)
{
	struct rnic_call call = { .name = CALL_QUERY_PORT };
	struct device_link *link = soft_link(context, "query_port");
	int error = port == 1 ? device_link_call(link, &call) : EINVAL;

	if (error)
		return error;
	memset(attr, 0, size);
	memcpy(attr, &call.port_attr, size < sizeof(call.port_attr) ? size : sizeof(call.port_attr));
	return 0;
}

EXPORT int ibv_query_port(struct ibv_context *context, uint8_t port, struct _compat_ibv_port_attr *attr)
{
	return query_port(context, port, (struct ibv_port_attr *)attr, offsetof(struct ibv_port_attr, port_cap_flags2));
}

static int query_entry(struct ibv_context *context, uint32_t port, int index, struct rnic_call *call)
{
	*call = (struct rnic_call){ .name = CALL_QUERY_GID };
	call->gid.port = port;
	call->gid.index = index;
	return port == 1 && index >= 0 ? device_link_call(soft_link(context, "query_gid"), call) : EINVAL;
}

EXPORT int ibv_query_gid(struct ibv_context *context, uint8_t port, int index, union ibv_gid *gid)
{
	struct rnic_call call;
	int error = query_entry(context, port, index, &call);

	if (error) {
		errno = error;
		return -1;
	}
	memcpy(gid->raw, call.gid.gid, sizeof(gid->raw));
	return 0;
}

EXPORT int ibv_query_gid_type(struct ibv_context *context, uint8_t port, unsigned int index, int *type)
{
	struct rnic_call call;
	int error = query_entry(context, port, (int)index, &call);

	if (error) {
		errno = error;
		return -1;
	}
	*type = call.gid.type;
	return 0;
}

static int is_used(const struct rnic_call *call)
{
	static const uint8_t none[16];

	return memcmp(call->gid.gid, none, sizeof(none)) != 0;
}

static void fill_entry(struct ibv_gid_entry *entry, const struct rnic_call *call, size_t size)
{
	struct ibv_gid_entry all = { .gid_index = (uint32_t)call->gid.index, .port_num = 1,
				     .ndev_ifindex = call->gid.ifindex };

	memcpy(all.gid.raw, call->gid.gid, sizeof(all.gid.raw));
	/* The type of an entry, not the one of sysfs: there both kinds of RoCE share the order, one apart. */
	all.gid_type = (uint32_t)call->gid.type + IBV_GID_TYPE_ROCE_V1;
	memset(entry, 0, size);
	memcpy(entry, &all, size < sizeof(all) ? size : sizeof(all));
}

EXPORT int _ibv_query_gid_ex(struct ibv_context *context, uint32_t port, uint32_t index, struct ibv_gid_entry *entry,
			     uint32_t flags, size_t size)
{
	struct rnic_call call;

	if (flags)
		return EOPNOTSUPP;
	int error = query_entry(context, port, (int)index, &call);
	if (error)
		return error;
	if (!is_used(&call))
		return ENODATA;
	fill_entry(entry, &call, size);
	return 0;
}

EXPORT ssize_t _ibv_query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries, size_t most,
				    uint32_t flags, size_t size)
{
	struct ibv_port_attr attr;
	ssize_t found = 0;

	if (flags)
		return -EOPNOTSUPP;
	int error = query_port(context, 1, &attr, sizeof(attr));
	for (int i = 0; !error && i < attr.gid_tbl_len; i++) {
		struct rnic_call call;

		if (query_entry(context, 1, i, &call) || !is_used(&call))
			continue;
		if ((size_t)found == most)
			return -EINVAL;
		fill_entry((struct ibv_gid_entry *)((char *)entries + (size_t)found++ * size), &call, size);
	}
	return error ? -error : found;
}

EXPORT int ibv_query_pkey(struct ibv_context *context, uint8_t port, int index, __be16 *pkey)
{
	soft_link(context, "query_pkey");
	if (port != 1 || index != 0) {
		errno = EINVAL;
		return -1;
	}
	*pkey = 0xffff;
	return 0;
}

EXPORT int ibv_get_pkey_index(struct ibv_context *context, uint8_t port, __be16 pkey)
{
	__be16 known;

	return ibv_query_pkey(context, port, 0, &known) || known != pkey ? -1 : 0;
}

static int query_rt_values(struct ibv_context *context, struct ibv_values_ex *values)
{
	soft_link(context, "query_rt_values");
	if (values->comp_mask & ~(uint32_t)IBV_VALUES_MASK_RAW_CLOCK)
		return EOPNOTSUPP;
	return clock_gettime(CLOCK_MONOTONIC, &values->raw_clock) ? errno : 0;
}

void soft_fill_query(struct verbs_context *verbs)
{
	verbs->query_port = query_port;
	verbs->query_device_ex = query_device_ex;
	verbs->query_rt_values = query_rt_values;
}
