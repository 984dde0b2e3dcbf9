#include "base/keymap.h"

#include <errno.h>

#include "base/pages.h"

struct mig_keymap *mig_keymap_new(uint32_t count)
{
	uint32_t slots = 16, shift = 28;

	/* At most half full, so that a look for a key that is not there ends soon. */
	while (slots < 2 * (uint64_t)count && slots < 1u << 30) {
		slots *= 2;
		shift--;
	}

	struct mig_keymap *map = mig_pages_alloc(sizeof(*map) + slots * sizeof(map->slots[0]));
	if (map) {
		map->mask = slots - 1;
		map->shift = shift;
	}
	return map;
}

void mig_keymap_free(struct mig_keymap *map)
{
	mig_pages_free(map);
}

void mig_keymap_drop(struct mig_keymap *map)
{
	if (map && __atomic_sub_fetch(&map->references, 1, __ATOMIC_ACQ_REL) <= 0)
		mig_keymap_free(map);
}

int mig_keymap_set(struct mig_keymap *map, uint32_t from, uint32_t to)
{
	uint32_t slot = mig_keymap_slot(map, from);

	for (;;) {
		struct mig_key *key = &map->slots[slot];
		int empty = !key->from && !key->to;

		if (empty && map->used > map->mask / 2)
			return ENOSPC;
		if (empty || key->from == from) {
			map->used += (uint32_t)empty;
			/* Sections look at `from` first; a key of 0 that maps to 0 needs no slot. */
			__atomic_store_n(&key->to, to, __ATOMIC_RELAXED);
			__atomic_store_n(&key->from, from, __ATOMIC_RELEASE);
			return 0;
		}
		slot = (slot + 1) & map->mask;
	}
}
