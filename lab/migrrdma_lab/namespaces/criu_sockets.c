// SPDX-License-Identifier: MIT
/*
 * From Linux 6.16 on, SO_PASSCRED and SO_PASSSEC of a socket that is no unix socket are refused (EOPNOTSUPP) where
 * they used to be 0. CRIU before 4.2 asks for both of every socket that it dumps, and gives up. This library, loaded
 * into CRIU by the fast rack's wrapper, gives the former answer. Only on such kernels, and never outside the rack.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

typedef int (*getsockopt_fn)(int, int, int, void *, socklen_t *);

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
