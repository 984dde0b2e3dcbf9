/*
 * The way to the daemon for the moment of a question: a unix socket in the directory of the host, which a container has as a
 * mount. By path, for an abstract name ends at the network namespace. Nothing stays open: CRIU dumps no socket whose other end
 * is outside.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "remote.h"

/* A container's /dev has a place for a mount whatever its root file system is; a host has the other. */
static const char *const directories[] = { "/dev/rdma-device", "/run/rdma-device" };

static int connect_to(const char *directory, int *fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int length = snprintf(address.sun_path, sizeof(address.sun_path), "%s/verbs", directory);

	if (length < 0 || (size_t)length >= sizeof(address.sun_path))
		return ENAMETOOLONG;
	*fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (*fd < 0)
		return errno;
	if (!connect(*fd, (struct sockaddr *)&address, sizeof(address)))
		return 0;
	int error = errno;
	close(*fd);
	return error;
}

static int connect_socket(int *fd)
{
	const char *asked = getenv("RDMA_DEVICE_DIR");
	int error = ENOENT;

	if (asked)
		return connect_to(asked, fd);
	for (size_t i = 0; error == ENOENT && i < sizeof(directories) / sizeof(directories[0]); i++)
		error = connect_to(directories[i], fd);
	return error;
}

static int send_question(int fd, const struct rnic_question *question, const int *descriptors)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(RNIC_OPEN_DESCRIPTORS * sizeof(int))];
	} control = { .room = { 0 } };
	struct iovec data = { (void *)question, sizeof(*question) };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1 };

	if (descriptors) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(RNIC_OPEN_DESCRIPTORS * sizeof(int));
		memcpy(CMSG_DATA(header), descriptors, RNIC_OPEN_DESCRIPTORS * sizeof(int));
	}
	return sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)sizeof(*question) ? 0 : errno ? errno : EIO;
}

int remote_ask(const struct rnic_question *question, const int *descriptors, struct rnic_answer *answer)
{
	int fd, error = connect_socket(&fd);
	ssize_t got = 0;

	answer->error = 0;
	if (error)
		return error;
	error = send_question(fd, question, descriptors);
	while (!error && (got = recv(fd, answer, sizeof(*answer), 0)) < 0)
		if (errno != EINTR)
			error = errno;
	close(fd);
	if (!error && got != (ssize_t)sizeof(*answer))
		error = EPROTO;
	return error ? error : answer->error;
}
