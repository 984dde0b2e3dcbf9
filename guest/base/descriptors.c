#define _GNU_SOURCE
#include "base/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel's; its C library's function needs an allocator, and is not in every one under this name. */
struct entry {
	uint64_t inode, offset;
	unsigned short length;
	unsigned char type;
	char name[];
};

static void descriptors_look_at(const char *name, int own, void (*look)(int, const char *, void *), void *argument)
{
	char link[64], target[256];
	int fd = 0;

	for (const char *digit = name; *digit; digit++) {
		if (*digit < '0' || *digit > '9')
			return; /* the directory itself and the one above */
		fd = fd * 10 + (*digit - '0');
	}
	if (fd == own)
		return;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, target, sizeof(target) - 1);
	if (length < 0)
		return; /* closed meanwhile by its owner */
	target[length] = '\0';
	look(fd, target, argument);
}

int mig_each_descriptor(void (*look)(int fd, const char *target, void *argument), void *argument)
{
	_Alignas(struct entry) char buffer[4096];
	int directory = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = 0;
	long got;

	if (directory < 0)
		return errno;
	while ((got = syscall(SYS_getdents64, directory, buffer, sizeof(buffer))) > 0)
		for (long at = 0; at < got;) {
			const struct entry *entry = (const struct entry *)(buffer + at);

			descriptors_look_at(entry->name, directory, look, argument);
			at += entry->length;
		}
	if (got < 0)
		error = errno;
	close(directory);
	return error;
}

int mig_stat_descriptor(int fd, struct stat *stat)
{
	return syscall(SYS_fstat, fd, stat) ? errno : 0;
}
