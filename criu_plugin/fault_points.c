/* Strikes where a file says so, once. The Python twin: migrrdma_runtime/base/fault_points.py. */
#include "fault_points.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

#define HELD_MOST_MS 120000
#define LOOK_MS 10

static void pause_for(double seconds)
{
	struct timespec time = { (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };

	while (nanosleep(&time, &time) && errno == EINTR)
		;
}

static void hold(const char *path)
{
	char held[160];

	snprintf(held, sizeof(held), "%s.held", path);
	int fd = open(held, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	close(fd);
	for (int waited = 0; waited < HELD_MOST_MS && !access(held, F_OK); waited += LOOK_MS)
		pause_for(LOOK_MS / 1e3);
}

/* What the point's file says; empty if it is not armed, or if anybody but root could have armed it. */
static void armed(const char *path, char *text, size_t size)
{
	struct stat status;
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	text[0] = '\0';
	if (fd < 0)
		return;
	if (!fstat(fd, &status) && (!status.st_uid || status.st_uid == geteuid()) && !(status.st_mode & 022)) {
		ssize_t got = read(fd, text, size - 1);

		text[got > 0 ? got : 0] = '\0';
	}
	close(fd);
}

static int reach(const char *action, const char *moment)
{
	char path[128], text[64], kind[16] = "";
	double seconds = 1;

	snprintf(path, sizeof(path), FAULTS "/%s.%s", action, moment);
	armed(path, text, sizeof(text));
	if (sscanf(text, "%15s %lf", kind, &seconds) < 1 || unlink(path))
		return 0;
	if (!strcmp(kind, "kill"))
		kill(getpid(), SIGKILL);
	else if (!strcmp(kind, "delay"))
		pause_for(seconds);
	else if (!strcmp(kind, "hold"))
		hold(path);
	else if (!strcmp(kind, "error")) {
		pr_err("an error that was planted at %s.%s", action, moment);
		return -1;
	}
	return 0;
}

int fault_before(const char *action)
{
	return reach(action, "before");
}

int fault_after(const char *action)
{
	return reach(action, "after");
}
