/*
 * "Nobody is inside a data path call any more", without a lock or an atomic operation on the data path.
 *
 * Every thread that posts or polls owns a word: the number of the period in which it entered a call (a *section*),
 * zero outside. Whoever changes what the calls look at first stores the change, then begins a new period, then has
 * the kernel put a full barrier into every running thread of the process (membarrier), then waits until no word
 * holds the number of an earlier period. A section that begins later sees the change. This is liburcu's "memb"
 * scheme, cut down to what is needed. A thread only ever stores to its word: to add to it would make each call wait
 * for the store of the one before, which costs more than all the rest.
 *
 * A signal handler may interrupt a section and make a call of its own. That must not end the section it has interrupted:
 * so the fast ways are for threads that are in none, and the others leave the word as they have met it.
 *
 * Rule: a section never blocks. No lock of ours is taken inside, nothing is allocated inside. So it is safe
 * to wait for sections with locks held.
 */
#ifndef MIGRRDMA_SECTION_H
#define MIGRRDMA_SECTION_H

#include <stdint.h>

struct mig_section {
	uint64_t inside;
	struct mig_section *next;
	int taken;
	/* For who looks from outside: what the thread is called, and the verb that it is in (verb_gate.h), if it is. */
	int tid;
	const char *verb;
	uint64_t since_ns; /* CLOCK_MONOTONIC */
	int waits;	   /* for the gate to be opened */
	/* One cache line each: the word is written by every call of its thread. */
} __attribute__((aligned(64)));

/* The word of the threads that have none yet: always inside, never written. So one look serves for both. */
extern const struct mig_section mig_section_none __attribute__((visibility("hidden")));

/* The thread's own. The library is built for initial-exec: one instruction; it is always loaded at start. */
extern __thread struct mig_section *mig_section_mine __attribute__((visibility("hidden")));

/* The number of the period; alone in its cache line, since every call reads it. */
extern struct mig_period {
	uint64_t number;
} __attribute__((aligned(64))) mig_period __attribute__((visibility("hidden")));

/* Of all threads; words are never freed. */
extern struct mig_section *mig_sections __attribute__((visibility("hidden")));

/* The calling thread's word, made when there is none; NULL: out of memory. */
struct mig_section *mig_section_get(void);

/* Whether the kernel offers what synchronising needs; else 0 or an errno. */
int mig_sections_usable(void);

/* Waits until every section (or only that thread's) begun before has ended. Not from inside a section. */
void mig_synchronize(void);
void mig_synchronize_with(struct mig_section *section);

/* In the child of a fork: the other threads' sections will never end. */
void mig_sections_after_fork(void);

#ifdef __SANITIZE_THREAD__
/* ThreadSanitizer does not know membarrier: show it the ordering that membarrier makes. */
#define MIG_ENTER_ORDER __ATOMIC_SEQ_CST
#define MIG_GATE_ORDER __ATOMIC_SEQ_CST
#else
#define MIG_ENTER_ORDER __ATOMIC_RELAXED
/* What stands behind an open gate was put there before it was opened. (On x86 every load is one.) */
#define MIG_GATE_ORDER __ATOMIC_ACQUIRE
#endif

/* Whether the calling thread has a word and is in no section: else it must take a way that asks mig_section_get. */
static inline int mig_section_is_free(const struct mig_section *section)
{
	/* Its own thread alone writes it: an ordinary load, which the comparison takes in. */
	return !section->inside;
}

/* section must be the calling thread's own, and free. */
static inline void mig_section_enter(struct mig_section *section)
{
	/* Acquire: who is in the new period sees what was changed before it. (On x86 every load is one.) */
	__atomic_store_n(&section->inside, __atomic_load_n(&mig_period.number, __ATOMIC_ACQUIRE), MIG_ENTER_ORDER);
	/* The compiler must not move the section above; membarrier does it for the processor. */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline void mig_section_leave(struct mig_section *section)
{
	__atomic_store_n(&section->inside, 0, __ATOMIC_RELEASE);
}

/* Likewise, of a thread that may be in one already: what it is to leave to. Of two periods the earlier one counts. */
static inline uint64_t mig_section_enter_nested(struct mig_section *section)
{
	uint64_t outer = __atomic_load_n(&section->inside, __ATOMIC_RELAXED);

	if (!outer)
		mig_section_enter(section);
	return outer;
}

static inline void mig_section_leave_nested(struct mig_section *section, uint64_t outer)
{
	__atomic_store_n(&section->inside, outer, __ATOMIC_RELEASE);
}

/* Names the thread, too, for who tells the two apart: what a gate holds for one that may go its way, but not the fastest. */
static inline struct mig_section *mig_section_second(struct mig_section *section)
{
	return (struct mig_section *)((char *)section + 1);
}

/* A value that sections look at and synchronisers change. */
#define MIG_GATE(variable) __atomic_load_n(&(variable), MIG_GATE_ORDER)
#define MIG_SET_GATE(variable, value) __atomic_store_n(&(variable), (value), __ATOMIC_SEQ_CST)

#endif
