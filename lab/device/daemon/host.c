/* Hosts: each has a device, and a socket in a directory that its containers have mounted. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon.h"

struct host *hosts;

struct host *host_find(const char *name)
{
	struct host *host = hosts;

	while (host && strcmp(host->name, name))
		host = host->next;
	return host;
}

/* The devices behind one socket are those of one host, whatever their number. */
static void list(const struct host *asked, struct rnic_answer *answer)
{
	for (struct host *host = hosts; host; host = host->next)
		if (!strcmp(host->path, asked->path) && answer->count < RNIC_MOST_DEVICES)
			answer->devices[answer->count++] = host->listed;
}

static struct host *host_of(const struct host *asked, const char *device)
{
	for (struct host *host = hosts; host; host = host->next)
		if (!strcmp(host->path, asked->path) && !strncmp(host->listed.name, device, sizeof(host->listed.name)))
			return host;
	return NULL;
}

static void answer_question(struct host *asked, const struct rnic_question *question, pid_t pid, const int *descriptors,
			    int count, struct rnic_answer *answer)
{
	if (question->version != RNIC_WIRE_VERSION) {
		answer->error = EPROTO;
	} else if (question->ask == RNIC_ASK_LIST) {
		list(asked, answer);
	} else if (question->ask == RNIC_ASK_ALIVE) {
		answer->error = client_is_known(pid, question->id) ? 0 : ENOENT;
	} else {
		struct host *host = host_of(asked, question->name);

		/* A program that has replaced another in the same process has none of its openings. */
		clients_sweep(true);
		if (!host)
			answer->error = ENODEV;
		else if (question->ask != RNIC_ASK_OPEN || count != RNIC_OPEN_DESCRIPTORS)
			answer->error = EINVAL;
		else
			answer->error = client_open(host, pid, question->area, descriptors, answer);
	}
}

static int receive(int fd, struct rnic_question *question, int *descriptors)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(RNIC_OPEN_DESCRIPTORS * sizeof(int))];
	} control;
	struct iovec data = { question, sizeof(*question) };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
	int count = 0;

	for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(descriptors, CMSG_DATA(header), (size_t)count * sizeof(int));
	}
	if (got == (ssize_t)sizeof(*question))
		return count;
	for (int i = 0; i < count; i++)
		close(descriptors[i]);
	return -1;
}

/* A process that has connected. What it asks is read when it is there: one that says nothing keeps nobody waiting. */
struct asker {
	struct watch watch;
	struct host *host;
};

static void asked(struct watch *watch)
{
	struct asker *asker = (struct asker *)watch;
	struct rnic_question question;
	struct rnic_answer answer = { 0 };
	struct ucred peer;
	socklen_t size = sizeof(peer);
	int descriptors[RNIC_OPEN_DESCRIPTORS];
	int count = receive(watch->fd, &question, descriptors);

	if (count >= 0 && !getsockopt(watch->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size)) {
		answer_question(asker->host, &question, peer.pid, descriptors, count, &answer);
		if (send(watch->fd, &answer, sizeof(answer), MSG_NOSIGNAL) < 0)
			complain("%s: process %d is gone before its answer: %s", asker->host->name, peer.pid,
				 strerror(errno));
	}
	for (int i = 0; i < count; i++)
		close(descriptors[i]);
	watch_remove(watch);
	free(asker);
}

static void connected(struct watch *watch)
{
	struct asker *asker = calloc(1, sizeof(*asker));
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0 && asker) {
		*asker = (struct asker){ { asked, fd }, (struct host *)watch };
		if (!watch_add(&asker->watch))
			return;
	}
	if (fd >= 0)
		close(fd);
	free(asker);
}

static int listen_at(struct host *host)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	strcpy(address.sun_path, host->path);
	unlink(host->path);
	host->socket = (struct watch){ connected, socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) };
	if (host->socket.fd < 0)
		return errno;
	/* Any user's container may ask, as /dev/infiniband/uverbsN has mode 0666; the node itself is the right. */
	if (bind(host->socket.fd, (struct sockaddr *)&address, sizeof(address)) || chmod(host->path, 0666) ||
	    listen(host->socket.fd, 64))
		return errno;
	return watch_add(&host->socket);
}

int host_add(const char *name, const char *device, const char *socket, const char *node, dev_t number)
{
	struct host *host = calloc(1, sizeof(*host)), *first;
	const char *last = strrchr(node, '/');
	uint32_t index = 0;

	if (!host)
		return ENOMEM;
	if (host_find(name) || strlen(name) >= sizeof(host->name) || strlen(socket) >= sizeof(host->path) ||
	    strlen(device) >= sizeof(host->listed.name) || strlen(node) >= sizeof(host->listed.path)) {
		free(host);
		return EINVAL;
	}
	strcpy(host->name, name);
	strcpy(host->path, socket);
	strcpy(host->listed.name, device);
	strcpy(host->listed.path, node);
	snprintf(host->listed.node, sizeof(host->listed.node), "%.63s", last ? last + 1 : node);
	host->node = number;
	host->socket.fd = -1;
	for (first = hosts; first; first = first->next)
		index += !strcmp(first->path, socket);
	host->listed.index = index;
	/* As long as the name is not the same, neither is the number: FNV-1a. */
	host->listed.guid = UINT64_C(14695981039346656037);
	for (const char *at = name; *at; at++)
		host->listed.guid = (host->listed.guid ^ (unsigned char)*at) * UINT64_C(1099511628211);
	int error = index ? 0 : listen_at(host);
	if (!error && !(host->device = rnic_device_new(fabric, device, name)))
		error = ENOMEM;
	if (error) {
		watch_remove(&host->socket);
		free(host);
		return error;
	}
	host->next = hosts;
	hosts = host;
	return 0;
}

void host_remove_all(void)
{
	while (clients)
		client_close(clients);
	while (hosts) {
		struct host *host = hosts;

		hosts = host->next;
		if (host->socket.fd >= 0)
			unlink(host->path);
		watch_remove(&host->socket);
		host_follow_end(host);
		resources_end(host);
		rnic_device_free(host->device);
		free(host);
	}
}
