#include "control/call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shadow/process.h"

#define SOCKET_IN_CONTAINER "/dev/migrrdma/agent/guest.sock"
#define SOCKET_ON_HOST "/run/migrrdma/agent/guest.sock"

const char *mig_call_socket(void)
{
	const char *path = getenv("MIGRRDMA_SOCKET");

	if (path && *path)
		return path;
	return access(SOCKET_IN_CONTAINER, F_OK) ? SOCKET_ON_HOST : SOCKET_IN_CONTAINER;
}

int mig_call_has_come(void)
{
	char path[300];
	const char *socket = mig_call_socket(), *slash = strrchr(socket, '/');

	snprintf(path, sizeof(path), "%.*sresume-%016llx", slash ? (int)(slash + 1 - socket) : 0, socket,
		 (unsigned long long)mig.token);
	return !access(path, F_OK);
}

int mig_call_can_come(void)
{
	return !access(mig_call_socket(), F_OK);
}
