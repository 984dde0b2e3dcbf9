/* One word: the number of verbs under way, and a bit that keeps new ones out. */
#include "base/verb_gate.h"

#include <errno.h>
#include <time.h>

#include "base/lock.h"

#define STOPPED (1 << 30)

static int world;

/* The thread that stopped the world, or that is inside a verb already (an allocator's hook), goes through. */
static __thread int depth;

void mig_world_enter(void)
{
	if (depth++)
		return;

	int seen = __atomic_load_n(&world, __ATOMIC_RELAXED);

	for (;;) {
		if (seen & STOPPED) {
			mig_futex_wait(&world, seen, -1);
			seen = __atomic_load_n(&world, __ATOMIC_RELAXED);
		} else if (__atomic_compare_exchange_n(&world, &seen, seen + 1, 0, __ATOMIC_ACQUIRE,
						       __ATOMIC_RELAXED)) {
			return;
		}
	}
}

void mig_world_leave(const int *unused)
{
	(void)unused;
	if (--depth)
		return;
	if (__atomic_sub_fetch(&world, 1, __ATOMIC_RELEASE) == STOPPED)
		mig_futex_wake_all(&world);
}

/* Stopping a stopped world is nothing: a parked process stays stopped over several steps. */
static int held;

static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void let_go(void)
{
	__atomic_and_fetch(&world, ~STOPPED, __ATOMIC_RELEASE);
	mig_futex_wake_all(&world);
}

int mig_world_stop(int timeout_ms)
{
	long deadline = now_ms() + timeout_ms;
	int seen;

	if (held)
		return 0;
	seen = __atomic_or_fetch(&world, STOPPED, __ATOMIC_ACQUIRE);
	while (seen != STOPPED) {
		long left = deadline - now_ms();

		if (left <= 0) {
			let_go();
			return ETIMEDOUT;
		}
		mig_futex_wait(&world, seen, (int)left);
		seen = __atomic_load_n(&world, __ATOMIC_ACQUIRE);
	}
	depth++;
	held = 1;
	return 0;
}

void mig_world_go(void)
{
	if (!held)
		return;
	held = 0;
	depth--;
	let_go();
}

void mig_world_after_fork(void)
{
	world = 0;
	depth = 0;
	held = 0;
}
