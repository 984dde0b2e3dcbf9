/*
 * Who is where: queue pairs that take datagrams and have moved, here or elsewhere. An application names one by a GID and a
 * number for as long as it lives; what is listed here is somewhere else now. The process has one list, made anew whenever
 * something moves, and read in sections.
 */
#ifndef MIGRRDMA_SHADOW_PLACES_H
#define MIGRRDMA_SHADOW_PLACES_H

#include <infiniband/verbs.h>
#include <stdint.h>

#include "wire/control.h"

struct mig_place {
	union ibv_gid gid, now_gid;
	uint32_t qpn, now_qpn;
};

struct mig_places {
	uint32_t count, mask;
	struct mig_place *list;
	uint32_t *by_name, *by_place; /* indices into the list, plus one */
};

/* NULL: nothing has moved. */
extern struct mig_places *mig_places;

/*
 * The list as it will be with these: whatever the application names by the first GID and number, and is at the second now, will
 * be at the third. Of names that have not moved before, only those that are still what they say. NULL: out of memory.
 */
struct mig_places *mig_places_with(const struct mig_places *places, const struct mig_place_record *records, uint32_t count);
void mig_places_free(struct mig_places *places);

/* Where what has that name is, and what is there; NULL: where its name says. In a section, or with the verb gate closed. */
const struct mig_place *mig_place_named(const struct mig_places *places, const union ibv_gid *gid, uint32_t qpn);
const struct mig_place *mig_place_at(const struct mig_places *places, const union ibv_gid *now_gid, uint32_t now_qpn);

static inline int mig_gid_is(const union ibv_gid *a, const union ibv_gid *b)
{
	return a->global.subnet_prefix == b->global.subnet_prefix && a->global.interface_id == b->global.interface_id;
}

#endif
