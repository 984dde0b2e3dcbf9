/*
 * The log file is opened for every line and closed again: a descriptor kept open would be one more for CRIU
 * to carry to a host where the file may not exist.
 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cancel.h"

static const char *const level_names[] = { "", "error", "warn", "info", "debug" };

static enum mig_log_level wanted_level(const char *setting)
{
	for (int level = MIG_LOG_ERROR; level <= MIG_LOG_DEBUG; level++) {
		size_t length = strlen(level_names[level]);

		if (!strncmp(setting, level_names[level], length) &&
		    (setting[length] == ':' || setting[length] == '\0'))
			return (enum mig_log_level)level;
	}
	return MIG_LOG_WARN;
}

void mig_log(enum mig_log_level level, const char *format, ...)
{
	const char *setting = getenv("MIGRRDMA_LOG");
	int saved = errno;

	if (!setting || !*setting || level > wanted_level(setting))
		return;

	MIG_UNCANCELLED;
	char line[512];
	int used = snprintf(line, sizeof(line), "migrrdma[%d] %s: ", (int)getpid(), level_names[level]);
	va_list arguments;

	va_start(arguments, format);
	int more = vsnprintf(line + used, sizeof(line) - (size_t)used - 1, format, arguments);
	va_end(arguments);
	if (more > 0)
		used += more;
	if (used > (int)sizeof(line) - 2)
		used = (int)sizeof(line) - 2;
	line[used++] = '\n';

	const char *colon = strchr(setting, ':');
	char fallback[64];

	snprintf(fallback, sizeof(fallback), "/tmp/migrrdma-%d.log", (int)getpid());
	int fd = open(colon ? colon + 1 : fallback,
		      O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW, 0644);
	if (fd >= 0) {
		/* A log that cannot be written is no reason to disturb the application. */
		ssize_t written = write(fd, line, (size_t)used);
		(void)written;
		close(fd);
	}
	errno = saved;
}
