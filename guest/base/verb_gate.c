/* One word: the number of verbs under way, and a bit that keeps new ones out. */
#include "base/verb_gate.h"

#include <errno.h>
#include <time.h>

#include "base/cancel.h"
#include "base/lock.h"
#include "base/section.h"

#define CLOSED (1 << 30)

static int gate;

/* The thread that closed the gate, or that is inside a verb already (an allocator's hook), goes through. */
static __thread int depth;

/* Whether the thread could be cancelled before its verb: one that was, would count for ever. */
static __thread int cancel_state;

/* Without memory for a word nobody learns of it, and the verb goes on. */
static void say_where(const char *verb)
{
	struct mig_section *section = mig_section_get();
	struct timespec now;

	if (!section)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	section->since_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	__atomic_store_n(&section->verb, verb, __ATOMIC_RELEASE);
}

static void say_whether_it_waits(int waits)
{
	if (mig_section_mine != &mig_section_none)
		__atomic_store_n(&mig_section_mine->waits, waits, __ATOMIC_RELAXED);
}

void mig_verb_gate_enter(const char *verb)
{
	if (depth++)
		return;
	cancel_state = mig_cancel_disable();
	say_where(verb);

	int seen = __atomic_load_n(&gate, __ATOMIC_RELAXED);

	for (;;) {
		if (seen & CLOSED) {
			say_whether_it_waits(1);
			mig_futex_wait(&gate, seen, -1);
			say_whether_it_waits(0);
			seen = __atomic_load_n(&gate, __ATOMIC_RELAXED);
		} else if (__atomic_compare_exchange_n(&gate, &seen, seen + 1, 0, __ATOMIC_ACQUIRE,
						       __ATOMIC_RELAXED)) {
			return;
		}
	}
}

void mig_verb_gate_leave(const int *unused)
{
	(void)unused;
	if (--depth)
		return;
	if (mig_section_mine != &mig_section_none)
		__atomic_store_n(&mig_section_mine->verb, NULL, __ATOMIC_RELAXED);
	if (__atomic_sub_fetch(&gate, 1, __ATOMIC_RELEASE) == CLOSED)
		mig_futex_wake_all(&gate);
	mig_cancel_restore(&cancel_state);
}

/* To close a closed gate is nothing: it stays closed for a parked process over several steps. */
static int held;

static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void let_go(void)
{
	__atomic_and_fetch(&gate, ~CLOSED, __ATOMIC_RELEASE);
	mig_futex_wake_all(&gate);
}

int mig_verb_gate_close(int timeout_ms)
{
	long deadline = now_ms() + timeout_ms;
	int seen;

	if (held)
		return 0;
	seen = __atomic_or_fetch(&gate, CLOSED, __ATOMIC_ACQUIRE);
	while (seen != CLOSED) {
		long left = deadline - now_ms();

		if (left <= 0) {
			let_go();
			return ETIMEDOUT;
		}
		mig_futex_wait(&gate, seen, (int)left);
		seen = __atomic_load_n(&gate, __ATOMIC_ACQUIRE);
	}
	depth++;
	held = 1;
	return 0;
}

void mig_verb_gate_open(void)
{
	if (!held)
		return;
	held = 0;
	depth--;
	let_go();
}

/* While it is closed nobody else is inside a verb. */
int mig_verb_gate_is_ours(void)
{
	return depth && held;
}

void mig_verb_gate_after_fork(void)
{
	gate = 0;
	depth = 0;
	held = 0;
}
