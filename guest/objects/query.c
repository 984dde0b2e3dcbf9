#include "objects/query.h"

#include <errno.h>
#include <string.h>

#include "base/verb_gate.h"
#include "objects/offer.h"
#include "real/export.h"
#include "shadow/find.h"

int ibv_query_device(struct ibv_context *ibv, struct ibv_device_attr *attr)
{
	struct mig_context *context = mig_context(ibv);

	if (!context)
		return mig_real()->ibv_query_device(ibv, attr);
	MIG_VERB;
	return mig_real()->ibv_query_device(context->real, attr);
}

int ibv_query_port(struct ibv_context *ibv, uint8_t port, struct _compat_ibv_port_attr *attr)
{
	struct mig_context *context = mig_context(ibv);

	if (!context)
		return mig_real()->ibv_query_port(ibv, port, attr);
	MIG_VERB;
	return mig_real()->ibv_query_port(context->real, port, attr);
}

int ibv_query_port_speed(struct ibv_context *ibv, uint32_t port, uint64_t *speed)
{
	struct mig_context *context = mig_context(ibv);

	if (!mig_real()->ibv_query_port_speed)
		return EOPNOTSUPP;
	MIG_VERB;
	return mig_real()->ibv_query_port_speed(context ? context->real : ibv, port, speed);
}

/* The application may tell it to others, and has to be found by it after a move. */
static void note_gid(struct mig_context *context, uint32_t port, uint32_t index, const union ibv_gid *gid)
{
	static const union ibv_gid none;

	if (!memcmp(gid, &none, sizeof(none)))
		return;
	MIG_LOCKED(&context->lock);
	for (int i = 0; i < context->told_gid_count; i++)
		if (context->told_gids[i].port == port && context->told_gids[i].index == index) {
			context->told_gids[i].gid = *gid;
			return;
		}
	if (context->told_gid_count < MIG_GID_MAPS)
		context->told_gids[context->told_gid_count++] = (struct mig_own_gid){ port, index, *gid };
}

/* After a move the GIDs that it has asked for and those that its QPs use stay what the application has told its peers. */
int ibv_query_gid(struct ibv_context *ibv, uint8_t port, int index, union ibv_gid *gid)
{
	struct mig_context *context = mig_context(ibv);

	if (!context)
		return mig_real()->ibv_query_gid(ibv, port, index, gid);
	MIG_VERB;
	const struct mig_gid_map *map = mig_gid_find(context, port, (uint32_t)index);
	if (map) {
		*gid = map->gid;
		return 0;
	}
	int error = mig_real()->ibv_query_gid(context->real, port, index, gid);

	if (!error)
		note_gid(context, port, (uint32_t)index, gid);
	return error;
}

int _ibv_query_gid_ex(struct ibv_context *ibv, uint32_t port, uint32_t index, struct ibv_gid_entry *entry,
		      uint32_t flags, size_t size)
{
	struct mig_context *context = mig_context(ibv);

	if (!mig_real()->_ibv_query_gid_ex)
		return EOPNOTSUPP;
	if (!context)
		return mig_real()->_ibv_query_gid_ex(ibv, port, index, entry, flags, size);
	MIG_VERB;
	const struct mig_gid_map *map = mig_gid_find(context, port, index);
	int error = mig_real()->_ibv_query_gid_ex(context->real, map ? map->new_port : port,
						  map ? map->new_index : index, entry, flags, size);
	if (!error && map && size >= sizeof(*entry)) {
		entry->gid = map->gid;
		entry->gid_index = index;
		entry->port_num = port;
	} else if (!error && size >= sizeof(*entry)) {
		note_gid(context, port, index, &entry->gid);
	}
	return error;
}

ssize_t _ibv_query_gid_table(struct ibv_context *ibv, struct ibv_gid_entry *entries, size_t count, uint32_t flags,
			     size_t size)
{
	struct mig_context *context = mig_context(ibv);

	if (!mig_real()->_ibv_query_gid_table)
		return -EOPNOTSUPP;
	if (!context)
		return mig_real()->_ibv_query_gid_table(ibv, entries, count, flags, size);
	MIG_VERB;
	ssize_t found = mig_real()->_ibv_query_gid_table(context->real, entries, count, flags, size);
	for (ssize_t i = 0; i < found && size == sizeof(*entries); i++) {
		const struct mig_gid_map *map = mig_gid_find(context, entries[i].port_num, entries[i].gid_index);

		if (map)
			entries[i].gid = map->gid;
		else
			note_gid(context, entries[i].port_num, entries[i].gid_index, &entries[i].gid);
	}
	return found;
}

int ibv_query_gid_type(struct ibv_context *ibv, uint8_t port, unsigned int index, int *type)
{
	struct mig_context *context = mig_context(ibv);

	if (!context)
		return mig_real()->ibv_query_gid_type(ibv, port, index, type);
	MIG_VERB;
	const struct mig_gid_map *map = mig_gid_find(context, port, index);
	return mig_real()->ibv_query_gid_type(context->real, (uint8_t)(map ? map->new_port : port),
					      map ? map->new_index : index, type);
}

int ibv_query_pkey(struct ibv_context *ibv, uint8_t port, int index, __be16 *pkey)
{
	struct mig_context *context = mig_context(ibv);

	if (!context)
		return mig_real()->ibv_query_pkey(ibv, port, index, pkey);
	MIG_VERB;
	return mig_real()->ibv_query_pkey(context->real, port, index, pkey);
}

int ibv_get_pkey_index(struct ibv_context *ibv, uint8_t port, __be16 pkey)
{
	struct mig_context *context = mig_context(ibv);

	if (!mig_real()->ibv_get_pkey_index)
		return -1;
	if (!context)
		return mig_real()->ibv_get_pkey_index(ibv, port, pkey);
	MIG_VERB;
	return mig_real()->ibv_get_pkey_index(context->real, port, pkey);
}

int ibv_resolve_eth_l2_from_gid(struct ibv_context *ibv, struct ibv_ah_attr *attr, uint8_t mac[6],
				uint16_t *vlan)
{
	struct mig_context *context = mig_context(ibv);

	if (!context)
		return mig_real()->ibv_resolve_eth_l2_from_gid(ibv, attr, mac, vlan);
	MIG_VERB;
	return mig_real()->ibv_resolve_eth_l2_from_gid(context->real, attr, mac, vlan);
}

static int query_port(struct ibv_context *ibv, uint8_t port, struct ibv_port_attr *attr, size_t size)
{
	MIG_VERB;
	return mig_real_operations(ibv)->query_port(mig_context(ibv)->real, port, attr, size);
}

static int query_device_ex(struct ibv_context *ibv, const struct ibv_query_device_ex_input *input,
			   struct ibv_device_attr_ex *attr, size_t size)
{
	MIG_VERB;
	return mig_real_operations(ibv)->query_device_ex(mig_context(ibv)->real, input, attr, size);
}

static int query_rt_values(struct ibv_context *ibv, struct ibv_values_ex *values)
{
	MIG_VERB;
	return mig_real_operations(ibv)->query_rt_values(mig_context(ibv)->real, values);
}

void mig_query_offer(struct mig_context *context)
{
	struct ibv_context_ops *operations = &context->verbs.context.ops;

	MIG_PUT(operations->_compat_query_device, ibv_query_device);
	MIG_PUT(operations->_compat_query_port, ibv_query_port);
	MIG_OFFER(context, query_port, query_port);
	MIG_OFFER(context, query_device_ex, query_device_ex);
	MIG_OFFER(context, query_rt_values, query_rt_values);
}
