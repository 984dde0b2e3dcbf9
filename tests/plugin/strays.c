/*
 * A process with threads that would begin or end something while the plugin proves that the guest can be restored.
 *
 *	strays STATE LIBRARY DEVICE MODE
 *
 * STATE, LIBRARY and DEVICE are as of lock_users. As soon as the guest's thread is told to try what it needs,
 *	begins, ends	one thread begins a process, or ends; then the one that has the lock lets go of it
 *	brink		the one that has the lock begins another thread before it lets go of it
 *	vfork, spins	the guest's thread itself waits for a child that does not end, or makes system calls for ever
 *	slow		nothing; it asks once a second
 * What is begun, or waits for the end, says "went on".
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/lock.h"
#include "wire/control.h"

static struct mig_lock *lock;
static volatile int guest_runs, told, held, near;
static const char *mode;

static int is(const char *name)
{
	return !strcmp(mode, name);
}

static void *say(void *unused)
{
	(void)unused;
	puts("went on");
	return NULL;
}

static void *begin_or_end(void *unused)
{
	(void)unused;
	while (!told)
		;
	near = 1;
	if (is("ends"))
		syscall(SYS_exit, 0);
	if (!syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		say(NULL);
	}
	for (;;)
		pause();
}

static void *have_the_lock(void *unused)
{
	pthread_t thread;

	(void)unused;
	mig_lock(lock);
	held = 1;
	while (!told || (!near && !is("brink")))
		;
	if (is("brink"))
		pthread_create(&thread, NULL, say, NULL);
	mig_unlock(lock);
	for (;;)
		pause();
}

static void *guest(void *unused)
{
	(void)unused;
	prctl(PR_SET_NAME, MIG_THREAD_NAME);
	guest_runs = 1;
	for (;;) {
		if (syscall(SYS_prctl, MIG_PRCTL, MIG_PRCTL_ASK, 0, 0, 0) == MIG_PRCTL_REHEARSE) {
			told = 1;
			while (is("spins"))
				syscall(SYS_getppid);
			if (is("vfork") && !vfork())
				for (;;)
					pause();
			mig_lock(lock);
			mig_unlock(lock);
			syscall(SYS_prctl, MIG_PRCTL, MIG_PRCTL_DONE, 0, 0, 0);
		}
		usleep(is("slow") ? 1000000 : 10000);
	}
	return NULL;
}

int main(int count, char **arguments)
{
	pthread_t first, another;

	if (count != 5)
		return 2;
	mode = arguments[4];
	lock = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, open(arguments[1], O_RDWR), 0);
	const void *library = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, open(arguments[2], O_RDONLY), 0);
	if (lock == MAP_FAILED || library == MAP_FAILED || open(arguments[3], O_RDWR) < 0)
		return 2;
	setlinebuf(stdout);
	if ((is("begins") || is("ends")) && pthread_create(&first, NULL, begin_or_end, NULL))
		return 2;
	if ((is("begins") || is("ends") || is("brink")) && pthread_create(&another, NULL, have_the_lock, NULL))
		return 2;
	if (pthread_create(&another, NULL, guest, NULL))
		return 2;
	while (!guest_runs || (!held && (is("begins") || is("ends") || is("brink"))))
		usleep(1000);
	puts("ready");
	if (is("ends") && !pthread_join(first, NULL))
		say(NULL);
	for (;;)
		pause();
}
