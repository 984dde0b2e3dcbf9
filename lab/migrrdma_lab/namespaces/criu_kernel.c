// SPDX-License-Identifier: MIT
/*
 * Loaded into CRIU by the fast rack's wrapper, and by nothing else: how this machine's kernel has to look to CRIU on a
 * node that is a set of namespaces.
 *
 * Sockets: from Linux 6.16 on, SO_PASSCRED and SO_PASSSEC of a socket that is no unix socket are refused (EOPNOTSUPP)
 * where they used to be 0. CRIU before 4.2 asks for both of every socket that it dumps, and gives up.
 *
 * Cgroups: a node has version 2's hierarchy alone. Where the machine has version 1's as well, /proc/PID/cgroup says
 * so, and CRIU would make and write cgroups there, in the machine's own trees.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

typedef int (*getsockopt_fn)(int, int, int, void *, socklen_t *);
typedef int (*openat_fn)(int, const char *, int, ...);
typedef FILE *(*fmemopen_fn)(void *, size_t, const char *);

int getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict length)
{
	getsockopt_fn libcs;
	*(void **)&libcs = dlsym(RTLD_NEXT, "getsockopt");

	int result = libcs(fd, level, name, value, length);
	if (result == 0 || errno != EOPNOTSUPP || level != SOL_SOCKET)
		return result;
	if ((name != SO_PASSCRED && name != SO_PASSSEC) || *length < sizeof(int))
		return result;
	memset(value, 0, sizeof(int));
	*length = sizeof(int);
	return 0;
}

static bool is_version_1(const char *line)
{
	size_t digits = strspn(line, "0123456789");
	return digits && line[digits] == ':' && strncmp(line, "0::", 3) != 0;
}

/* A file with the lines of FD's that are not version 1's; FD is closed. -1 and errno. */
static int without_version_1(int fd)
{
	FILE *from = fdopen(fd, "r");
	if (!from) {
		close(fd);
		return -1;
	}
	int kept = memfd_create("cgroup", MFD_CLOEXEC);
	char line[8192];
	while (kept >= 0 && fgets(line, sizeof(line), from)) {
		size_t length = strlen(line);
		if (!is_version_1(line) && write(kept, line, length) != (ssize_t)length) {
			close(kept);
			kept = -1;
		}
	}
	fclose(from);
	if (kept >= 0)
		lseek(kept, 0, SEEK_SET);
	return kept;
}

/* CRIU opens what is in /proc relative to a folder there. */
int openat64(int folder, const char *path, int flags, ...)
{
	openat_fn libcs;
	*(void **)&libcs = dlsym(RTLD_NEXT, "openat64");

	va_list arguments;
	va_start(arguments, flags);
	mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(arguments, mode_t) : 0;
	va_end(arguments);

	int fd = libcs(folder, path, flags, mode);
	const char *slash = strrchr(path, '/');
	if (fd >= 0 && strcmp(slash ? slash + 1 : path, "cgroup") == 0 && (flags & O_ACCMODE) == O_RDONLY &&
	    !(flags & (O_DIRECTORY | O_PATH)))
		return without_version_1(fd);
	return fd;
}

/* What a dumped process itself reads of its cgroups, CRIU has in memory. */
FILE *fmemopen(void *buffer, size_t size, const char *mode)
{
	fmemopen_fn libcs;
	*(void **)&libcs = dlsym(RTLD_NEXT, "fmemopen");

	char *text = buffer;
	if (*mode != 'r' || memchr(text, '\0', size))
		return libcs(buffer, size, mode);
	char *end = text + size, *kept = text;
	for (char *line = text; line < end;) {
		char *newline = memchr(line, '\n', (size_t)(end - line));
		char *next = newline ? newline + 1 : end;
		size_t length = (size_t)(next - line);
		char start[24] = "";
		memcpy(start, line, length < sizeof(start) - 1 ? length : sizeof(start) - 1);
		if (!is_version_1(start)) {
			memmove(kept, line, length);
			kept += length;
		}
		line = next;
	}
	return libcs(buffer, (size_t)(kept - text), mode);
}
