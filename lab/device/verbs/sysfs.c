/* Reading sysfs, which libibverbs lends to other libraries of rdma-core. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "export.h"

const char *ibv_get_sysfs_path(void);
int ibv_read_sysfs_file(const char *directory, const char *name, char *buffer, size_t size);

EXPORT const char *ibv_get_sysfs_path(void)
{
	const char *path = getenv("SYSFS_PATH");

	return path ? path : "/sys";
}

/* The file's first bytes without a final newline; their number, or -1. */
EXPORT int ibv_read_sysfs_file(const char *directory, const char *name, char *buffer, size_t size)
{
	char path[PATH_MAX];

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", directory, name) >= sizeof(path) || !size)
		return -1;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t length = read(fd, buffer, size);
	close(fd);
	if (length <= 0)
		return -1;
	if (buffer[length - 1] == '\n')
		buffer[--length] = '\0';
	else if ((size_t)length < size)
		buffer[length] = '\0';
	else
		return -1;
	return (int)length;
}
