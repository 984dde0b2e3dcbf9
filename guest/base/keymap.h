/*
 * Keys whose physical number differs from the virtual one: a hash table that is made once, read without a lock in
 * sections, and given up after a grace period. What is not in it is the same on both sides.
 */
#ifndef MIGRRDMA_KEYMAP_H
#define MIGRRDMA_KEYMAP_H

#include <stdint.h>

struct mig_key {
	uint32_t from, to;
};

struct mig_keymap {
	uint32_t mask; /* slots - 1 */
	uint32_t shift;
	uint32_t used;
	int references; /* QPs that hold it; atomic */
	struct mig_key slots[];
};

/* Room for count keys at least; NULL: out of memory. */
struct mig_keymap *mig_keymap_new(uint32_t count);
void mig_keymap_free(struct mig_keymap *map);

/* Lets go of a map that no section can reach: taken from its QPs before the last grace period, or never shown. */
void mig_keymap_drop(struct mig_keymap *map);

/* Replaces an earlier value; a slot whose two numbers are equal is free. ENOSPC when there is no room. */
int mig_keymap_set(struct mig_keymap *map, uint32_t from, uint32_t to);

static inline uint32_t mig_keymap_slot(const struct mig_keymap *map, uint32_t from)
{
	/* The upper bits of the product depend on all of the key's; many devices' keys differ in the upper ones only. */
	return (from * 2654435769u) >> map->shift;
}

static inline uint32_t mig_keymap_get(const struct mig_keymap *map, uint32_t from)
{
	if (!map)
		return from;
	/* Ends: half of the slots are free. */
	for (uint32_t slot = mig_keymap_slot(map, from);; slot = (slot + 1) & map->mask) {
		const struct mig_key *key = &map->slots[slot];

		if (__builtin_expect(key->from == from, 1))
			return __atomic_load_n(&key->to, __ATOMIC_RELAXED);
		if (!key->from && !key->to)
			return from;
	}
}

#endif
