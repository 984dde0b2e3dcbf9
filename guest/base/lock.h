/*
 * A mutex on a futex word.
 *
 * The library refers to no pthread function: before glibc 2.34 they live in a library that a process may
 * not have, and a futex word can be set free in the child of a fork by writing zero.
 */
#ifndef MIGRRDMA_LOCK_H
#define MIGRRDMA_LOCK_H

struct mig_lock {
	int word; /* 0 free, 1 held, 2 held and somebody waits */
};

void mig_lock_wait(struct mig_lock *lock);
void mig_lock_wake(struct mig_lock *lock);
void mig_futex_wait(int *word, int value, int timeout_ms);
void mig_futex_wake_all(int *word);

static inline struct mig_lock *mig_lock(struct mig_lock *lock)
{
	int free = 0;

	if (!__atomic_compare_exchange_n(&lock->word, &free, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		mig_lock_wait(lock);
	return lock;
}

static inline void mig_unlock(struct mig_lock *lock)
{
	if (__atomic_exchange_n(&lock->word, 0, __ATOMIC_RELEASE) == 2)
		mig_lock_wake(lock);
}

static inline void mig_unlock_held(struct mig_lock **held)
{
	mig_unlock(*held);
}

#define MIG_JOIN_(a, b) a##b
#define MIG_JOIN(a, b) MIG_JOIN_(a, b)

/* Holds the lock until the end of the scope. */
#define MIG_LOCKED(lock)                                                                                   \
	__attribute__((cleanup(mig_unlock_held), unused)) struct mig_lock *MIG_JOIN(held_, __LINE__) =      \
		mig_lock(lock)

#endif
