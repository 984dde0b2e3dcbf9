/*
 * The place of the guest library: does nothing but prove that it was loaded.
 *
 * It must load into images older than the build host and into musl ones. So it needs no library
 * (no DT_NEEDED), and what it uses of the C library it refers to weakly and without a symbol version:
 * whichever C library the process has fills it in, or nobody does.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#pragma weak __errno_location
#pragma weak getenv
#pragma weak open
#pragma weak strchr
#pragma weak write
#pragma weak close

static const char loaded[] = "migrrdma: the guest library is loaded\n";

/* MIGRRDMA_LOG=LEVEL:FILE; never stdout or stderr, which are the application's. */
__attribute__((constructor)) static void announce(void)
{
	if (!__errno_location || !getenv || !open || !strchr || !write || !close)
		return;

	const char *log = getenv("MIGRRDMA_LOG");
	const char *file = log ? strchr(log, ':') : NULL;
	if (!file)
		return;

	int saved = errno;
	int fd = open(file + 1, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
	if (fd >= 0) {
		/* A log that cannot be written is no reason to disturb the application. */
		ssize_t written = write(fd, loaded, sizeof(loaded) - 1);
		(void)written;
		close(fd);
	}
	errno = saved;
}
