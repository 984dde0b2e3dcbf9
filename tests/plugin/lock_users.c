/*
 * A process whose threads do nothing but take one lock and let it go, and one that answers the plugin as a parked guest does.
 *
 *	lock_users STATE LIBRARY DEVICE THREADS|keeper
 *
 * The lock is the first word of the shared file STATE, so that it can be seen from outside who holds it; LIBRARY is mapped
 * executable, DEVICE is opened. The guest's thread takes the lock once if it is told to. With "keeper", one thread of that name
 * has it for ever.
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/lock.h"
#include "wire/control.h"

static struct mig_lock *lock;
static volatile unsigned long *work;
static volatile int guest_runs;

static void take(int rounds)
{
	mig_lock(lock);
	for (int i = 0; i < rounds; i++)
		work[1]++;
	mig_unlock(lock);
}

static void *use(void *unused)
{
	(void)unused;
	for (;;)
		take(200);
	return NULL;
}

static void *keep(void *unused)
{
	(void)unused;
	prctl(PR_SET_NAME, "keeper");
	mig_lock(lock);
	for (;;)
		work[1]++;
	return NULL;
}

static void *guest(void *unused)
{
	(void)unused;
	prctl(PR_SET_NAME, MIG_THREAD_NAME);
	guest_runs = 1;
	for (;;) {
		if (syscall(SYS_prctl, MIG_PRCTL, MIG_PRCTL_ASK, 0, 0, 0) == MIG_PRCTL_REHEARSE) {
			take(1);
			syscall(SYS_prctl, MIG_PRCTL, MIG_PRCTL_DONE, 0, 0, 0);
		}
		usleep(10000);
	}
	return NULL;
}

int main(int count, char **arguments)
{
	pthread_t thread;

	if (count != 5)
		return 2;
	lock = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, open(arguments[1], O_RDWR), 0);
	const void *library = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, open(arguments[2], O_RDONLY), 0);
	if (lock == MAP_FAILED || library == MAP_FAILED || open(arguments[3], O_RDWR) < 0)
		return 2;
	work = (unsigned long *)lock;
	int threads = atoi(arguments[4]);
	bool is_kept = !strcmp(arguments[4], "keeper");

	if (is_kept && pthread_create(&thread, NULL, keep, NULL))
		return 2;
	for (int i = 0; i < threads; i++)
		if (pthread_create(&thread, NULL, use, NULL))
			return 2;
	if (pthread_create(&thread, NULL, guest, NULL))
		return 2;
	while (!guest_runs || ((threads || is_kept) && work[1] < 100000))
		usleep(1000);
	setlinebuf(stdout);
	puts("ready");
	pause();
	return 0;
}
