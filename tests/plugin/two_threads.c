/*
 * A process as the plugin meets it in a restore: one thread is the application, one is the guest library's by its name.
 *
 *	two_threads COUNTERS LIBRARY [helper]
 *
 * Both count in the shared file COUNTERS: the application in the first word, the guest's thread in the second. LIBRARY is
 * mapped executable. It says "ready" when both count; then the application says "went on" as soon as the third word is set.
 * The guest's thread waits for a child that does not end as soon as the fourth word is. With "helper" there is a second process,
 * of that name.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

static volatile uint64_t *counters;

static void *guest(void *unused)
{
	(void)unused;
	prctl(PR_SET_NAME, "migrrdma");
	for (;;) {
		counters[1]++;
		usleep(100);
		if (counters[3] && !vfork())
			for (;;)
				pause();
	}
	return NULL;
}

int main(int count, char **arguments)
{
	pthread_t thread;

	if (count != 3 && count != 4)
		return 2;
	if (count == 4 && !fork()) {
		prctl(PR_SET_NAME, arguments[3]);
		for (;;)
			pause();
	}
	counters = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, open(arguments[1], O_RDWR), 0);
	const void *library = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, open(arguments[2], O_RDONLY), 0);
	if (counters == MAP_FAILED || library == MAP_FAILED || pthread_create(&thread, NULL, guest, NULL))
		return 2;
	while (!counters[1])
		counters[0]++;
	setlinebuf(stdout);
	puts("ready");
	while (!counters[2])
		counters[0]++;
	puts("went on");
	pause();
	return 0;
}
