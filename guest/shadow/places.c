#include "shadow/places.h"

#include <stdlib.h>
#include <string.h>

struct mig_places *mig_places;

static uint32_t place_slot(const struct mig_places *places, const union ibv_gid *gid, uint32_t qpn)
{
	uint64_t mixed = (gid->global.interface_id ^ gid->global.subnet_prefix ^ qpn) * 0x9e3779b97f4a7c15u;

	return (uint32_t)(mixed >> 32) & places->mask;
}

const struct mig_place *mig_place_named(const struct mig_places *places, const union ibv_gid *gid, uint32_t qpn)
{
	for (uint32_t slot = place_slot(places, gid, qpn); places->by_name[slot]; slot = (slot + 1) & places->mask) {
		const struct mig_place *place = &places->list[places->by_name[slot] - 1];

		if (place->qpn == qpn && mig_gid_is(&place->gid, gid))
			return place;
	}
	return NULL;
}

const struct mig_place *mig_place_at(const struct mig_places *places, const union ibv_gid *gid, uint32_t qpn)
{
	for (uint32_t slot = place_slot(places, gid, qpn); places->by_place[slot]; slot = (slot + 1) & places->mask) {
		const struct mig_place *place = &places->list[places->by_place[slot] - 1];

		if (place->now_qpn == qpn && mig_gid_is(&place->now_gid, gid))
			return place;
	}
	return NULL;
}

static void enter(const struct mig_places *places, uint32_t *table, const union ibv_gid *gid, uint32_t qpn, uint32_t index)
{
	uint32_t slot = place_slot(places, gid, qpn);

	while (table[slot])
		slot = (slot + 1) & places->mask;
	table[slot] = index + 1;
}

/* In the list that is being made, of which the first ones are those of before. */
static struct mig_place *known_as(const struct mig_places *made, const struct mig_places *before,
				  const struct mig_place_record *record)
{
	union ibv_gid gid;

	memcpy(gid.raw, record->vgid, sizeof(record->vgid));
	const struct mig_place *place = before ? mig_place_named(before, &gid, record->vqpn) : NULL;

	if (place)
		return &made->list[place - before->list];
	for (uint32_t i = before ? before->count : 0; i < made->count; i++)
		if (made->list[i].qpn == record->vqpn && mig_gid_is(&made->list[i].gid, &gid))
			return &made->list[i];
	return NULL;
}

/* One of which nothing is known yet is where its name says, or whoever says this has no word on the name. */
static void merge(struct mig_places *places, const struct mig_places *before, const struct mig_place_record *record)
{
	struct mig_place *place = known_as(places, before, record);
	int is_new = !place;

	if (is_new) {
		if (record->vqpn != record->qpn || memcmp(record->vgid, record->gid, sizeof(record->vgid)))
			return;
		place = &places->list[places->count++];
		memcpy(place->gid.raw, record->vgid, sizeof(record->vgid));
		place->qpn = record->vqpn;
	} else if (place->now_qpn != record->qpn || memcmp(place->now_gid.raw, record->gid, sizeof(record->gid))) {
		return;
	}
	memcpy(place->now_gid.raw, record->new_gid, sizeof(record->new_gid));
	place->now_qpn = record->new_qpn;
}

struct mig_places *mig_places_with(const struct mig_places *places, const struct mig_place_record *records, uint32_t count)
{
	uint32_t most = (places ? places->count : 0) + count, size = 16;

	while (size < 2 * most)
		size *= 2;
	struct mig_places *made =
		calloc(1, sizeof(*made) + most * sizeof(*made->list) + 2 * (size_t)size * sizeof(*made->by_name));

	if (!made)
		return NULL;
	made->mask = size - 1;
	made->list = (struct mig_place *)(void *)(made + 1);
	made->by_name = (uint32_t *)(void *)(made->list + most);
	made->by_place = made->by_name + size;
	if (places) {
		memcpy(made->list, places->list, places->count * sizeof(*made->list));
		made->count = places->count;
	}
	for (uint32_t i = 0; i < count; i++)
		merge(made, places, &records[i]);
	for (uint32_t i = 0; i < made->count; i++) {
		enter(made, made->by_name, &made->list[i].gid, made->list[i].qpn, i);
		enter(made, made->by_place, &made->list[i].now_gid, made->list[i].now_qpn, i);
	}
	return made;
}

void mig_places_free(struct mig_places *places)
{
	free(places);
}
