#include "death_watch.h"

#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "scope.h"

/* The runtime only waits for this; on a host that is so busy CRIU goes on without. */
#define ANSWER_MS 5000

static int open_pipe(unsigned int pid, unsigned int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%u/fd/%u", pid, fd);
	return open(path, flags | O_CLOEXEC | O_NOCTTY);
}

static bool is_watched(unsigned int *pid, unsigned int *tell, unsigned int *hear)
{
	const char *where = getenv(DEATH_WATCH);
	char end;

	return where && sscanf(where, "%7u %7u %7u%c", pid, tell, hear, &end) == 3;
}

void death_watch_ask(void)
{
	unsigned int pid, tell, hear;
	char line[16];

	if (!is_watched(&pid, &tell, &hear))
		return;

	scoped_fd telling = open_pipe(pid, tell, O_WRONLY), hearing = open_pipe(pid, hear, O_RDONLY);
	int length = snprintf(line, sizeof(line), "%d\n", getpid());
	struct pollfd answer = { .fd = hearing, .events = POLLIN };

	if (telling >= 0 && hearing >= 0 && write(telling, line, (size_t)length) == length &&
	    poll(&answer, 1, ANSWER_MS) > 0 && answer.revents & POLLIN)
		return;
	pr_warn("the runtime (process %u) does not watch over CRIU: if that is killed, the container's connections may break, or "
		"processes be left",
		pid);
}

void death_watch_let_go(void)
{
	unsigned int pid, tell, hear;

	if (!is_watched(&pid, &tell, &hear))
		return;
	scoped_fd telling = open_pipe(pid, tell, O_WRONLY | O_NONBLOCK);
	if (telling < 0 || write(telling, "let go\n", 7) != 7)
		pr_warn("the runtime (process %u) is not told that what was restored goes on", pid);
}
