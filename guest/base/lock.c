/* The slow half of lock.h: sleeping and waking. */
#include "base/lock.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void mig_futex_wait(int *word, int value, int timeout_ms)
{
	struct timespec limit = { timeout_ms / 1000, (long)(timeout_ms % 1000) * 1000000 };
	int saved = errno;

	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, timeout_ms < 0 ? NULL : &limit, NULL, 0);
	errno = saved;
}

void mig_futex_wake_all(int *word)
{
	int saved = errno;

	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 0x7fffffff, NULL, NULL, 0);
	errno = saved;
}

void mig_lock_wait(struct mig_lock *lock)
{
	while (__atomic_exchange_n(&lock->word, 2, __ATOMIC_ACQUIRE) != 0)
		mig_futex_wait(&lock->word, 2, -1);
}

void mig_lock_wake(struct mig_lock *lock)
{
	int saved = errno;

	syscall(SYS_futex, &lock->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	errno = saved;
}
