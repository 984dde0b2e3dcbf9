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

const struct mig_section mig_section_none = { .inside = UINT64_MAX };
#define NONE ((struct mig_section *)(uintptr_t)&mig_section_none)

__thread struct mig_section *mig_section_mine = NONE;
struct mig_period mig_period = { 1 };

/* Guards the list's growth and `taken`. Words are never freed, only handed to later threads. */
static struct mig_lock sections_lock;
struct mig_section *mig_sections;

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

/*
 * Runs as the thread ends, after which nobody writes the word until another thread takes it. One that was cancelled in a
 * system call of the real library has not left its section.
 */
static void give_back(void *given)
{
	struct mig_section *section = given;

	mig_section_mine = NONE;
	__atomic_store_n(&section->verb, NULL, __ATOMIC_RELAXED);
	__atomic_store_n(&section->inside, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&section->taken, 0, __ATOMIC_RELEASE);
}

/* A process without the threads library has one thread, whose word need not be given back. */
static void make_exit_key(void)
{
	int (*create)(unsigned *key, void (*destroy)(void *)) =
		(int (*)(unsigned *, void (*)(void *)))(uintptr_t)mig_elf_global_symbol("pthread_key_create");

	set_specific = (int (*)(unsigned, const void *))(uintptr_t)mig_elf_global_symbol("pthread_setspecific");
	exit_key_made = create && set_specific && !create(&exit_key, give_back);
}

struct mig_section *mig_section_get(void)
{
	struct mig_section *section = mig_section_mine;

	if (section != NONE)
		return section;

	mig_lock(&sections_lock);
	if (!exit_key_made)
		make_exit_key();
	for (section = mig_sections; section; section = section->next)
		if (!__atomic_load_n(&section->taken, __ATOMIC_ACQUIRE))
			break;
	if (section)
		section->taken = 1;
	mig_unlock(&sections_lock);

	if (!section) {
		void *memory = NULL;

		if (posix_memalign(&memory, sizeof(*section), sizeof(*section)))
			return NULL;
		section = memory;
		memset(section, 0, sizeof(*section));
		section->taken = 1;
		mig_lock(&sections_lock);
		section->next = mig_sections;
		__atomic_store_n(&mig_sections, section, __ATOMIC_RELEASE);
		mig_unlock(&sections_lock);
	}
	mig_section_mine = section;
	section->tid = (int)syscall(SYS_gettid);
	if (exit_key_made)
		set_specific(exit_key, section);
	return section;
}

int mig_sections_usable(void)
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
static void wait_for(struct mig_section *section, uint64_t period)
{
	struct timespec nap = { 0, 20000 };

	for (int tries = 0;; tries++) {
		/* Of two who synchronise at once, one may meet sections of the other's later period. */
		uint64_t inside = __atomic_load_n(&section->inside, __ATOMIC_ACQUIRE);

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

	for (struct mig_section *section = __atomic_load_n(&mig_sections, __ATOMIC_ACQUIRE); section; section = section->next)
		if (section != mig_section_mine)
			wait_for(section, period);
	errno = saved;
}

void mig_synchronize_with(struct mig_section *section)
{
	int saved = errno;
	uint64_t period = begin_period();

	if (section != mig_section_mine)
		wait_for(section, period);
	errno = saved;
}

void mig_sections_after_fork(void)
{
	sections_lock.word = 0;
	for (struct mig_section *section = mig_sections; section; section = section->next) {
		if (section == mig_section_mine) {
			section->tid = (int)syscall(SYS_gettid);
			continue;
		}
		section->inside = 0;
		section->taken = 0;
		section->verb = NULL;
	}
}
