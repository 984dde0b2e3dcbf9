/* Scatter lists, copied as they are or with their keys in the numbers of the moment. */
#ifndef MIGRRDMA_PATH_TRANSLATE_H
#define MIGRRDMA_PATH_TRANSLATE_H

#include <infiniband/verbs.h>

#include "base/keymap.h"

/*
 * Member by member: applications write these three just before they post, and one wide load of what is still in the
 * processor's store queue in parts would wait for all of it.
 */
static inline void mig_copy_sge(struct ibv_sge *to, const struct ibv_sge *from)
{
	to->addr = __atomic_load_n(&from->addr, __ATOMIC_RELAXED);
	to->length = __atomic_load_n(&from->length, __ATOMIC_RELAXED);
	to->lkey = __atomic_load_n(&from->lkey, __ATOMIC_RELAXED);
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
