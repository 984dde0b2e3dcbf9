/* Registration of threads, and waiting for their sections. */
#include "base/section.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/elf.h"
#include "base/lock.h"

__thread struct mig_reader *mig_self;
struct mig_period mig_period = { 1 };

/* Guards the list's growth and `taken`. Words are never freed, only handed to later threads. */
static struct mig_lock readers_lock;
static struct mig_reader *readers;

static unsigned exit_key;
static int exit_key_made;
static int (*set_specific)(unsigned key, const void *value);

static int membarrier(int command)
{
	int saved = errno;
	long result = syscall(SYS_membarrier, command, 0, 0);
	int error = result < 0 ? errno : 0;

	errno = saved;
	return error ? -error : (int)result;
}

/* Runs as the thread ends, after which nobody writes the word until another thread takes it. */
static void give_back(void *reader)
{
	mig_self = NULL;
	__atomic_store_n(&((struct mig_reader *)reader)->taken, 0, __ATOMIC_RELEASE);
}

/* A process without the threads library has one thread, whose word need not be given back. */
static void make_exit_key(void)
{
	int (*create)(unsigned *key, void (*destroy)(void *)) =
		(int (*)(unsigned *, void (*)(void *)))(uintptr_t)mig_global_symbol("pthread_key_create");

	set_specific = (int (*)(unsigned, const void *))(uintptr_t)mig_global_symbol("pthread_setspecific");
	exit_key_made = create && set_specific && !create(&exit_key, give_back);
}

struct mig_reader *mig_reader_get(void)
{
	struct mig_reader *reader = mig_self;

	if (reader)
		return reader;

	mig_lock(&readers_lock);
	if (!exit_key_made)
		make_exit_key();
	for (reader = readers; reader; reader = reader->next)
		if (!__atomic_load_n(&reader->taken, __ATOMIC_ACQUIRE))
			break;
	if (reader)
		reader->taken = 1;
	mig_unlock(&readers_lock);

	if (!reader) {
		void *memory = NULL;

		if (posix_memalign(&memory, sizeof(*reader), sizeof(*reader)))
			return NULL;
		reader = memory;
		memset(reader, 0, sizeof(*reader));
		reader->taken = 1;
		mig_lock(&readers_lock);
		reader->next = readers;
		__atomic_store_n(&readers, reader, __ATOMIC_RELEASE);
		mig_unlock(&readers_lock);
	}
	mig_self = reader;
	if (exit_key_made)
		set_specific(exit_key, reader);
	return reader;
}

int mig_readers_usable(void)
{
	int commands = membarrier(MEMBARRIER_CMD_QUERY);

	if (commands < 0)
		return -commands;
	return commands & (MEMBARRIER_CMD_PRIVATE_EXPEDITED | MEMBARRIER_CMD_GLOBAL) ? 0 : ENOSYS;
}

/*
 * A full barrier for the caller as well. Registers every time: it is cheap, and a process that CRIU restored may have
 * lost its registration.
 */
static void barrier_everywhere(void)
{
	if (membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) >= 0 &&
	    membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) >= 0)
		return;
	/* Kernels before 4.14: milliseconds instead of microseconds. */
	membarrier(MEMBARRIER_CMD_GLOBAL);
}

static uint64_t begin_period(void)
{
	uint64_t number = __atomic_add_fetch(&mig_period.number, 1, __ATOMIC_SEQ_CST);

	barrier_everywhere();
	return number;
}

/* A section is as short as one call of the real library; its thread may have lost its processor, though. */
static void wait_for(struct mig_reader *reader, uint64_t period)
{
	struct timespec nap = { 0, 20000 };

	for (int tries = 0;; tries++) {
		/* Of two who synchronise at once, one may meet sections of the other's later period. */
		uint64_t inside = __atomic_load_n(&reader->inside, __ATOMIC_ACQUIRE);

		if (!inside || inside >= period)
			return;
		if (tries < 64)
			sched_yield();
		else
			nanosleep(&nap, NULL);
	}
}

void mig_synchronize(void)
{
	int saved = errno;
	uint64_t period = begin_period();

	for (struct mig_reader *reader = __atomic_load_n(&readers, __ATOMIC_ACQUIRE); reader; reader = reader->next)
		if (reader != mig_self)
			wait_for(reader, period);
	errno = saved;
}

void mig_synchronize_with(struct mig_reader *reader)
{
	int saved = errno;
	uint64_t period = begin_period();

	if (reader != mig_self)
		wait_for(reader, period);
	errno = saved;
}

void mig_readers_after_fork(void)
{
	readers_lock.word = 0;
	for (struct mig_reader *reader = readers; reader; reader = reader->next) {
		if (reader == mig_self)
			continue;
		reader->inside = 0;
		reader->taken = 0;
	}
}
