#include "leftover_maps.h"

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control.h"

/* "start-end perms offset device inode   path" */
static void look_at(const char *line)
{
	uintptr_t bounds[2] = { 0, 0 };

	if (!strstr(line, "/memfd:" MIG_PLACEHOLDER_NAME))
		return;
	for (int i = 0; i < 2; line++) {
		if (*line >= '0' && *line <= '9')
			bounds[i] = bounds[i] * 16 + (uintptr_t)(*line - '0');
		else if (*line >= 'a' && *line <= 'f')
			bounds[i] = bounds[i] * 16 + (uintptr_t)(*line - 'a' + 10);
		else
			i++;
	}
	if (bounds[1] > bounds[0])
		syscall(SYS_munmap, bounds[0], bounds[1] - bounds[0]);
}

void mig_unmap_placeholders(void)
{
	char buffer[8192];
	size_t used = 0;
	ssize_t got;
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	while ((got = read(fd, buffer + used, sizeof(buffer) - 1 - used)) > 0) {
		char *line = buffer, *end;

		used += (size_t)got;
		buffer[used] = '\0';
		while ((end = strchr(line, '\n'))) {
			*end = '\0';
			look_at(line);
			line = end + 1;
		}
		used -= (size_t)(line - buffer);
		memmove(buffer, line, used);
		if (used == sizeof(buffer) - 1)
			used = 0; /* a path of 8 KiB is none of ours */
	}
	close(fd);
}
