#include "shadow/ah.h"

#include <errno.h>
#include <stdlib.h>

#include "base/section.h"

/* Open addressing, at most half full. Of one that has ended its slot holds `ended` until the table is made anew. */
struct table {
	uint32_t mask, taken, live;
	struct mig_ah *slots[];
};

static struct mig_ah ended;
static struct mig_lock lock;
static struct table *table; /* changes under the lock; read in sections */

static uint32_t ah_slot(const struct table *in, const struct ibv_ah *handle)
{
	uint64_t mixed = (uintptr_t)handle * 0x9e3779b97f4a7c15u;

	return (uint32_t)(mixed >> 32) & in->mask;
}

static struct mig_ah *ah_in(const struct table *in, const struct ibv_ah *handle)
{
	for (uint32_t slot = in ? ah_slot(in, handle) : 0; in; slot = (slot + 1) & in->mask) {
		struct mig_ah *ah = __atomic_load_n(&in->slots[slot], __ATOMIC_ACQUIRE);

		if (!ah)
			return NULL;
		if (ah != &ended && ah->handle == handle)
			return ah;
	}
	return NULL;
}

struct mig_ah *mig_ah_find(const struct ibv_ah *handle)
{
	return ah_in(__atomic_load_n(&table, __ATOMIC_ACQUIRE), handle);
}

static void put(struct table *in, struct mig_ah *ah)
{
	uint32_t slot = ah_slot(in, ah->handle);

	while (in->slots[slot] && in->slots[slot] != &ended)
		slot = (slot + 1) & in->mask;
	in->taken += !in->slots[slot];
	in->live++;
	__atomic_store_n(&in->slots[slot], ah, __ATOMIC_RELEASE);
}

/* With room for twice as many as live; the lock is held, and what nobody can reach any more is left in *old. */
static int make_room(struct table **old)
{
	uint32_t size = 64;

	if (table && 2 * (table->taken + 1) <= table->mask + 1)
		return 0;
	while (table && size < 4 * (table->live + 1))
		size *= 2;
	struct table *fresh = calloc(1, sizeof(*fresh) + size * sizeof(fresh->slots[0]));

	if (!fresh)
		return ENOMEM;
	fresh->mask = size - 1;
	for (uint32_t i = 0; table && i <= table->mask; i++)
		if (table->slots[i] && table->slots[i] != &ended)
			put(fresh, table->slots[i]);
	*old = table;
	__atomic_store_n(&table, fresh, __ATOMIC_RELEASE);
	return 0;
}

int mig_ah_add(struct mig_ah *ah)
{
	struct table *old = NULL;

	mig_lock(&lock);
	int error = ah_in(table, ah->handle) ? EEXIST : make_room(&old);
	if (!error)
		put(table, ah);
	mig_unlock(&lock);
	if (old)
		mig_synchronize();
	free(old);
	return error;
}

void mig_ah_remove(struct mig_ah *ah)
{
	MIG_LOCKED(&lock);
	for (uint32_t slot = ah_slot(table, ah->handle); table->slots[slot]; slot = (slot + 1) & table->mask)
		if (table->slots[slot] == ah) {
			__atomic_store_n(&table->slots[slot], &ended, __ATOMIC_RELEASE);
			table->live--;
			return;
		}
}

void mig_ahs_after_fork(void)
{
	lock.word = 0;
	table = NULL;
}
