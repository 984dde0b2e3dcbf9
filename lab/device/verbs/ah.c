/* Address handles. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "export.h"
#include "soft.h"

EXPORT struct ibv_ah *ibv_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr)
{
	struct device_link *link = soft_link(pd->context, "create_ah");
	struct rnic_call call = { .name = CALL_CREATE_AH };
	struct soft_ah *ah = calloc(1, sizeof(*ah));
	struct rnic_route *route = &call.ah.route;

	memcpy(route->dgid, attr->grh.dgid.raw, sizeof(route->dgid));
	route->flow_label = attr->grh.flow_label;
	route->sgid_index = attr->grh.sgid_index;
	route->hop_limit = attr->grh.hop_limit;
	route->traffic_class = attr->grh.traffic_class;
	route->dlid = attr->dlid;
	route->sl = attr->sl;
	route->port = attr->port_num;
	route->is_global = attr->is_global;
	call.ah.pd = pd->handle;
	int error = ah ? device_link_call(link, &call) : ENOMEM;
	if (error) {
		free(ah);
		errno = error;
		return NULL;
	}
	ah->ibv.context = pd->context;
	ah->ibv.pd = pd;
	ah->ibv.handle = call.handle;
	ah->route = *route;
	return &ah->ibv;
}

EXPORT int ibv_destroy_ah(struct ibv_ah *ah)
{
	int error = soft_end(ah->context, CALL_DESTROY_AH, ah->handle, "destroy_ah");

	if (!error)
		free(ah);
	return error;
}

/* The table's place of an address of ours, of RoCE v2 by preference; -1: not there. */
static int find_gid(struct ibv_context *context, uint8_t port, const uint8_t gid[16])
{
	struct ibv_port_attr attr;
	int found = -1;

	if (soft_context(context)->verbs.query_port(context, port, &attr, sizeof(attr)))
		return -1;
	for (int i = 0; i < attr.gid_tbl_len; i++) {
		union ibv_gid known;

		if (!ibv_query_gid(context, port, i, &known) && !memcmp(known.raw, gid, sizeof(known.raw)))
			found = i;
	}
	return found;
}

/*
 * The header in front of a datagram is IPv6's, or IPv4's in the last 20 of its 40 bytes. They are told apart as the
 * kernel's ib_get_rdma_header_version does: by the version of the second with a right checksum.
 */
struct ipv4 {
	uint8_t version_length, service;
	uint16_t length, identification, fragment;
	uint8_t ttl, protocol;
	uint16_t checksum;
	uint8_t source[4], destination[4];
};

static bool is_ipv4(const struct ipv4 *header)
{
	const uint8_t *bytes = (const uint8_t *)header;
	uint32_t sum = 0;

	if (header->version_length != 0x45)
		return false;
	for (size_t i = 0; i < sizeof(*header); i += 2)
		sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

static void mapped(uint8_t gid[16], const uint8_t address[4])
{
	memset(gid, 0, 10);
	gid[10] = gid[11] = 0xff;
	memcpy(gid + 12, address, 4);
}

EXPORT int ibv_init_ah_from_wc(struct ibv_context *context, uint8_t port, struct ibv_wc *wc, struct ibv_grh *grh,
			       struct ibv_ah_attr *attr)
{
	uint8_t source[16], destination[16];
	struct ipv4 header;

	memset(attr, 0, sizeof(*attr));
	attr->dlid = wc->slid;
	attr->sl = wc->sl;
	attr->src_path_bits = wc->dlid_path_bits;
	attr->port_num = port;
	if (!(wc->wc_flags & IBV_WC_GRH))
		return 0;
	memcpy(&header, (const char *)grh + sizeof(*grh) - sizeof(header), sizeof(header));
	attr->is_global = 1;
	attr->grh.hop_limit = 64;
	if (is_ipv4(&header)) {
		mapped(source, header.source);
		mapped(destination, header.destination);
		attr->grh.traffic_class = header.service;
	} else {
		uint32_t flow = ntohl(grh->version_tclass_flow);

		memcpy(source, grh->sgid.raw, sizeof(source));
		memcpy(destination, grh->dgid.raw, sizeof(destination));
		attr->grh.flow_label = flow & 0xfffff;
		attr->grh.traffic_class = (uint8_t)(flow >> 20);
	}
	memcpy(attr->grh.dgid.raw, source, sizeof(source));
	int index = find_gid(context, port, destination);
	if (index < 0) {
		errno = ENOENT;
		return -1;
	}
	attr->grh.sgid_index = (uint8_t)index;
	return 0;
}

EXPORT struct ibv_ah *ibv_create_ah_from_wc(struct ibv_pd *pd, struct ibv_wc *wc, struct ibv_grh *grh, uint8_t port)
{
	struct ibv_ah_attr attr;

	return ibv_init_ah_from_wc(pd->context, port, wc, grh, &attr) ? NULL : ibv_create_ah(pd, &attr);
}

/* Of a network without frames: a locally administered address made of the GID, the same on both ends. */
EXPORT int ibv_resolve_eth_l2_from_gid(struct ibv_context *context, struct ibv_ah_attr *attr, uint8_t mac[6], uint16_t *vid)
{
	soft_link(context, "resolve_eth_l2_from_gid");
	mac[0] = 0x02;
	memcpy(mac + 1, attr->grh.dgid.raw + 11, 5);
	if (vid)
		*vid = 0xffff;
	return 0;
}
