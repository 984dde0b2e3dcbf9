/*
 * The GID table of a RoCE device follows the addresses of its network interface and of what was made on top of that, in whichever
 * network namespace it is: a container on a macvlan of the interface has a GID of its own in it. Here it follows the addresses of
 * one network in the host's namespace and in all that this one has an id for, which is given when an interface moves there.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/net_namespace.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon.h"

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif

#define OWN_NAMESPACE (-1)

struct follower {
	struct watch socket; /* first */
	struct host *host;
	uint32_t network, mask; /* host order */
	struct {
		bool used;
		uint32_t address; /* host order */
		int namespace;	  /* its id, or OWN_NAMESPACE */
	} entries[HOST_GIDS];
};

static void set_entry(struct follower *follower, int index, uint32_t address, int namespace, uint32_t ifindex)
{
	uint8_t gid[16] = { 0 };
	bool used = address != 0;

	if (used) {
		uint32_t network_order = htonl(address);

		gid[10] = gid[11] = 0xff;
		memcpy(gid + 12, &network_order, 4);
	}
	int error = host_set_gid(follower->host, index, gid, ifindex);
	if (error) {
		complain("%s: entry %d of its GID table: %s", follower->host->name, index, strerror(error));
		return;
	}
	follower->entries[index].used = used;
	follower->entries[index].address = address;
	follower->entries[index].namespace = namespace;
}

static void address_appears(struct follower *follower, uint32_t address, int namespace, uint32_t ifindex)
{
	static const uint8_t empty[16];
	uint8_t gid[16];
	uint32_t unused_ifindex;
	int type;

	for (int i = 0; i < HOST_GIDS; i++)
		if (follower->entries[i].used && follower->entries[i].address == address &&
		    follower->entries[i].namespace == namespace)
			return;
	for (int i = 1; i < HOST_GIDS; i++) /* the first is the link-local one */
		if (!rnic_gid_get(follower->host->device, i, gid, &type, &unused_ifindex) && !memcmp(gid, empty, sizeof(gid))) {
			set_entry(follower, i, address, namespace, ifindex);
			return;
		}
	complain("%s: no room in its GID table for another address", follower->host->name);
}

/* address 0: all of that namespace, which has ended. */
static void address_goes(struct follower *follower, uint32_t address, int namespace)
{
	for (int i = 0; i < HOST_GIDS; i++)
		if (follower->entries[i].used && follower->entries[i].namespace == namespace &&
		    (!address || follower->entries[i].address == address))
			set_entry(follower, i, 0, namespace, 0);
}

static void take_address(struct follower *follower, struct nlmsghdr *header, int namespace)
{
	struct ifaddrmsg *message = NLMSG_DATA(header);
	uint32_t address = 0;
	int length = (int)IFA_PAYLOAD(header);

	if (message->ifa_family != AF_INET)
		return;
	for (struct rtattr *at = IFA_RTA(message); RTA_OK(at, length); at = RTA_NEXT(at, length))
		if (at->rta_type == IFA_LOCAL && RTA_PAYLOAD(at) == sizeof(address))
			memcpy(&address, RTA_DATA(at), sizeof(address));
	address = ntohl(address);
	if (!address || (address & follower->mask) != follower->network)
		return;
	if (header->nlmsg_type == RTM_NEWADDR)
		address_appears(follower, address, namespace, message->ifa_index);
	else
		address_goes(follower, address, namespace);
}

static void take_namespace(struct follower *follower, struct nlmsghdr *header)
{
	int length = (int)(header->nlmsg_len - NLMSG_LENGTH(NLMSG_ALIGN(sizeof(struct rtgenmsg))));
	struct rtattr *at = (struct rtattr *)((char *)NLMSG_DATA(header) + NLMSG_ALIGN(sizeof(struct rtgenmsg)));

	for (; RTA_OK(at, length); at = RTA_NEXT(at, length))
		if (at->rta_type == NETNSA_NSID && RTA_PAYLOAD(at) == sizeof(int)) {
			int namespace;

			memcpy(&namespace, RTA_DATA(at), sizeof(namespace));
			address_goes(follower, 0, namespace);
		}
}

static int namespace_of(struct msghdr *message)
{
	int namespace = OWN_NAMESPACE;

	for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header))
		if (header->cmsg_level == SOL_NETLINK && header->cmsg_type == NETLINK_LISTEN_ALL_NSID)
			memcpy(&namespace, CMSG_DATA(header), sizeof(namespace));
	return namespace;
}

static void heard(struct watch *watch)
{
	struct follower *follower = (struct follower *)watch;
	_Alignas(struct nlmsghdr) char buffer[32768];
	char control[256];

	for (;;) {
		struct iovec data = { buffer, sizeof(buffer) };
		struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
					  .msg_controllen = sizeof(control) };
		ssize_t got = recvmsg(watch->fd, &message, MSG_DONTWAIT);
		int length = (int)got;

		if (got < 0 && errno == ENOBUFS)
			complain("%s: the kernel has dropped notices of addresses", follower->host->name);
		if (got <= 0)
			return;
		for (struct nlmsghdr *header = (struct nlmsghdr *)buffer; NLMSG_OK(header, length);
		     header = NLMSG_NEXT(header, length))
			if (header->nlmsg_type == RTM_NEWADDR || header->nlmsg_type == RTM_DELADDR)
				take_address(follower, header, namespace_of(&message));
			else if (header->nlmsg_type == RTM_DELNSID)
				take_namespace(follower, header);
	}
}

/* A socket of that namespace, which hears of the others that it has ids for. */
static int open_socket(const char *path, int *fd)
{
	static const int groups[] = { RTNLGRP_IPV4_IFADDR, RTNLGRP_NSID };
	int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), other = open(path, O_RDONLY | O_CLOEXEC);
	int one = 1, error = own < 0 || other < 0 || setns(other, CLONE_NEWNET) ? errno : 0;

	*fd = -1;
	if (!error) {
		*fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
		if (*fd < 0 || setsockopt(*fd, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, &one, sizeof(one)))
			error = errno;
		for (int i = 0; !error && i < 2; i++)
			if (setsockopt(*fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i], sizeof(groups[i])))
				error = errno;
		if (setns(own, CLONE_NEWNET)) {
			complain("cannot return to the daemon's network namespace: %s", strerror(errno));
			abort();
		}
	}
	if (own >= 0)
		close(own);
	if (other >= 0)
		close(other);
	return error;
}

int host_follow(struct host *host, const char *path, uint32_t network, uint32_t mask)
{
	struct {
		struct nlmsghdr header;
		struct ifaddrmsg message;
	} dump = { .header = { .nlmsg_len = sizeof(dump), .nlmsg_type = RTM_GETADDR,
			       .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		   .message = { .ifa_family = AF_INET } };
	struct follower *follower = calloc(1, sizeof(*follower));

	if (!follower)
		return ENOMEM;
	*follower = (struct follower){ .socket = { heard, -1 }, .host = host, .network = network & mask, .mask = mask };
	host_follow_end(host);
	int error = open_socket(path, &follower->socket.fd);
	if (!error)
		error = watch_add(&follower->socket);
	if (!error && send(follower->socket.fd, &dump, sizeof(dump), 0) < 0)
		error = errno;
	if (error) {
		watch_remove(&follower->socket);
		free(follower);
		return error;
	}
	host->follower = follower;
	/* What is there already is in the table when the command is answered. */
	heard(&follower->socket);
	return 0;
}

void host_follow_end(struct host *host)
{
	struct follower *follower = host->follower;

	if (!follower)
		return;
	/* The socket would keep the namespace, and what is in it, alive. */
	watch_remove(&follower->socket);
	for (int i = 0; i < HOST_GIDS; i++)
		if (follower->entries[i].used)
			set_entry(follower, i, 0, OWN_NAMESPACE, 0);
	free(follower);
	host->follower = NULL;
}
