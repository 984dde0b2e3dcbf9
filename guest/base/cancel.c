#include "base/cancel.h"

#include <pthread.h>

#include "base/elf.h"

typedef int set_state(int state, int *before);

static set_state *function(void)
{
	static set_state *found;
	set_state *cached = __atomic_load_n(&found, __ATOMIC_RELAXED);

	if (!cached) {
		cached = (set_state *)(uintptr_t)mig_elf_global_symbol("pthread_setcancelstate");
		__atomic_store_n(&found, cached, __ATOMIC_RELAXED);
	}
	return cached;
}

int mig_cancel_disable(void)
{
	set_state *set = function();
	int before = PTHREAD_CANCEL_ENABLE;

	if (set)
		set(PTHREAD_CANCEL_DISABLE, &before);
	return before;
}

void mig_cancel_restore(const int *state)
{
	set_state *set = function();
	int ours;

	if (set)
		set(*state, &ours);
}
