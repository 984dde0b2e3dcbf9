/*
 * Keys whose physical number differs from the virtual one: a hash table that is made once, read without a lock in
 * sections, and given up after a grace period. What is not in it is the same on both sides.
 */
#ifndef MIGRRDMA_KEYMAP_H
#define MIGRRDMA_KEYMAP_H

#include <stdint.h>

#include <infiniband/verbs.h>

struct mig_key {
	uint32_t from, to;
};

struct mig_keymap {
	uint32_t mask; /* slots - 1 */
	uint32_t shift;
	uint32_t used;
	int references; /* QPs that hold it; control thread */
	struct mig_key slots[];
};

/* Room for count keys at least; NULL: out of memory. */
struct mig_keymap *mig_keymap_new(uint32_t count);
void mig_keymap_free(struct mig_keymap *map);

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

static inline void mig_translate_sge(const struct mig_keymap *lkeys, struct ibv_sge *to, const struct ibv_sge *from)
{
	to->addr = __atomic_load_n(&from->addr, __ATOMIC_RELAXED);
	to->length = __atomic_load_n(&from->length, __ATOMIC_RELAXED);
	to->lkey = mig_keymap_get(lkeys, from->lkey);
}

/* A scatter list of few entries, most often of one, in the numbers of the moment; member by member, see mig_copy_sge. */
static inline void mig_translate_sges(const struct mig_keymap *lkeys, struct ibv_sge *to, const struct ibv_sge *from,
				      int count)
{
	if (__builtin_expect(count == 1, 1)) {
		mig_translate_sge(lkeys, to, from);
		return;
	}
	for (int i = 0; i < count; i++)
		mig_translate_sge(lkeys, &to[i], &from[i]);
}

#endif
