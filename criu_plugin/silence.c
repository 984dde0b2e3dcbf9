#include "silence.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "scope.h"

static bool is_a_tracee(const struct tracees *tracees, pid_t pid)
{
	for (size_t i = 0; i < tracees->all.count; i++)
		if (tracees->all.items[i].pid == pid)
			return true;
	return false;
}

/* Whether it is this process's own as well is found out like that of any other. */
static bool is_shared(int network, const struct tracees *tracees)
{
	struct stat wanted, found;
	const struct dirent *entry;
	char path[64];
	scoped_dir proc = opendir("/proc");

	if (!proc || fstat(network, &wanted))
		return true;
	while ((entry = readdir(proc))) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%.10s/ns/net", entry->d_name);
		if (!stat(path, &found) && found.st_dev == wanted.st_dev && found.st_ino == wanted.st_ino &&
		    !is_a_tracee(tracees, atoi(entry->d_name)))
			return true;
	}
	return false;
}

/* 0, or the error of the last link that stays up. */
static int take_links_down(void)
{
	scoped_fd any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct if_nameindex *links = if_nameindex();
	int error = any < 0 || !links ? errno : 0;

	for (const struct if_nameindex *link = links; link && link->if_name; link++) {
		struct ifreq request = { 0 };

		snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", link->if_name);
		if (ioctl(any, SIOCGIFFLAGS, &request)) {
			error = errno;
			continue;
		}
		request.ifr_flags = (short)(request.ifr_flags & ~IFF_UP);
		if (ioctl(any, SIOCSIFFLAGS, &request))
			error = errno;
	}
	if (links)
		if_freenameindex(links);
	return error;
}

void silence(pid_t root, const struct tracees *tracees)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/net", root);
	scoped_fd network = open(path, O_RDONLY | O_CLOEXEC);
	if (network < 0 || is_shared(network, tracees))
		return;
	/* In a process that ends with it: CRIU's own network must stay what it is. */
	pid_t child = fork();
	if (!child) {
		int error = setns(network, CLONE_NEWNET) ? errno : take_links_down();

		if (error)
			pr_warn("cutting off process %d before it is ended: %s; its TCP peers may see its connections end",
				root, strerror(error));
		_exit(0);
	}
	/* CRIU ignores SIGCHLD by now: this waits all the same, and finds nobody to reap. */
	while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
}
