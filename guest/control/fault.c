/* Strikes where a file says so. The file cannot be removed from here: each has a number, and strikes a process once. */
#include "control/fault.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FOLDER_IN_CONTAINER "/dev/migrrdma/guest/faults"
#define FOLDER_ON_HOST "/var/lib/migrrdma/guest/faults"

/* "NUMBER KIND [MILLISECONDS]" */
static unsigned long long fault_number(const char **text)
{
	unsigned long long value = 0;

	while (**text >= '0' && **text <= '9')
		value = value * 10 + (unsigned long long)(*(*text)++ - '0');
	if (**text == ' ')
		(*text)++;
	return value;
}

static void fault_wait(unsigned long long milliseconds)
{
	struct timespec time = { (time_t)(milliseconds / 1000), (long)(milliseconds % 1000) * 1000000 };

	nanosleep(&time, NULL);
}

int mig_fault_strikes(const char *kind, const char *moment)
{
	/* The last that has struck: it moves with the process, so that no other host's file strikes by the same number. */
	static unsigned long long last;
	char path[128], content[64];
	const char *text = content;

	snprintf(path, sizeof(path), "%s/guest.%s.%s",
		 access("/dev/migrrdma/guest", F_OK) ? FOLDER_ON_HOST : FOLDER_IN_CONTAINER, kind, moment);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t got = read(fd, content, sizeof(content) - 1);
	close(fd);
	content[got > 0 ? got : 0] = '\0';

	unsigned long long number = fault_number(&text);
	if (!number || number == last)
		return 0;
	last = number;
	if (!strncmp(text, "kill", 4))
		kill(getpid(), SIGKILL);
	if (!strncmp(text, "delay ", 6)) {
		text += 6;
		fault_wait(fault_number(&text));
	}
	return !strncmp(text, "error", 5);
}
