/* Processes that have opened a device: what they hand over at the beginning, and their end. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "daemon.h"

struct client *clients;

#define OF(watch, member) ((struct client *)((char *)(watch) - offsetof(struct client, member)))

static void bell_rang(struct watch *watch)
{
	uint64_t count;
	ssize_t got = read(watch->fd, &count, sizeof(count));

	(void)got; /* it woke the loop, which looks at every client */
}

static void process_ended(struct watch *watch)
{
	OF(watch, process)->gone = true;
}

/* Only of a file that nobody can make shorter under the mapping: that would end the daemon with SIGBUS. */
static int map_extent(struct client *client, int fd, size_t size)
{
	struct stat file;
	void *base;

	if (client->extent_count == RNIC_EXTENTS || fstat(fd, &file))
		return ENOMEM;
	int seals = fcntl(fd, F_GET_SEALS);
	if (!size || size > RNIC_EXTENT_MAX || (uint64_t)file.st_size < size || seals < 0 || !(seals & F_SEAL_SHRINK))
		return EINVAL;
	base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return errno;
	client->extents[client->extent_count++] = (struct extent){ base, size };
	return 0;
}

static void *memory_at(struct served *served, rnic_reference reference, size_t size)
{
	struct client *client = (struct client *)served;
	uint64_t index = reference >> RNIC_EXTENT_SHIFT, offset = reference & (RNIC_EXTENT_MAX - 1);

	if (index >= client->extent_count || offset % RNIC_LINE || size > client->extents[index].size ||
	    offset > client->extents[index].size - size)
		return NULL;
	return client->extents[index].base + offset;
}

static int take_descriptor(struct served *served, int fd)
{
	return (int)syscall(SYS_pidfd_getfd, ((struct client *)served)->process.fd, fd, 0);
}

static void close_descriptor(struct served *served, int fd)
{
	(void)served;
	close(fd);
}

static const struct served_ops of_processes = { memory_at, take_descriptor, close_descriptor };

int client_extend(struct client *client, struct rnic_call *call)
{
	int fd = take_descriptor(&client->served, call->area.fd);

	if (fd < 0)
		return errno;
	call->handle = client->extent_count;
	int error = map_extent(client, fd, call->area.size);
	close(fd);
	return error;
}

static int check_node(const struct host *host, int fd)
{
	struct stat node;

	if (fstat(fd, &node))
		return errno;
	return S_ISCHR(node.st_mode) && node.st_rdev == host->node ? 0 : EPERM;
}

static int open_process(struct client *client)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/mem", client->pid);
	client->process.fd = (int)syscall(SYS_pidfd_open, client->pid, 0);
	client->memory_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (client->process.fd < 0 || client->memory_fd < 0)
		return errno;
	return 0;
}

/* By the clock of the day, so that another daemon's are others. */
static uint64_t next_id(void)
{
	static uint64_t last;
	struct timespec time;

	if (!last) {
		clock_gettime(CLOCK_REALTIME, &time);
		last = (uint64_t)time.tv_sec * NANOSECONDS + (uint64_t)time.tv_nsec;
	}
	return ++last;
}

bool client_is_known(pid_t pid, uint64_t id)
{
	for (struct client *client = clients; client; client = client->next)
		if (client->id == id && client->pid == pid)
			return !client->gone;
	return false;
}

int client_open(struct host *host, pid_t pid, uint64_t area, const int *descriptors, struct rnic_answer *answer)
{
	struct client *client = calloc(1, sizeof(*client));
	struct stat file;
	uint64_t purge = 0, on_demand = 0;

	if (!client)
		return ENOMEM;
	client->host = host;
	client->pid = pid;
	client->area_at = area;
	client->memory_fd = client->process.fd = -1;
	client->bell = (struct watch){ bell_rang, fcntl(descriptors[2], F_DUPFD_CLOEXEC, 0) };
	client->process.ready = process_ended;
	int async_fd = fcntl(descriptors[3], F_DUPFD_CLOEXEC, 0);

	int error = check_node(host, descriptors[0]);
	if (!error && fstat(descriptors[1], &file))
		error = errno;
	if (!error && (size_t)file.st_size < sizeof(*client->area))
		error = EINVAL;
	if (!error)
		error = map_extent(client, descriptors[1], (size_t)file.st_size);
	if (!error)
		error = open_process(client);
	if (!error) {
		client->area = (struct rnic_area *)client->extents[0].base;
		if (!client_is_there(client))
			error = EFAULT;
	}
	if (!error && (client->bell.fd < 0 || async_fd < 0))
		error = EBADF;
	if (!error)
		error = serve_open(&client->served, &of_processes, host->device, &client_memory, &client->area->async, async_fd);
	if (error && async_fd >= 0)
		close(async_fd);
	if (!error)
		error = watch_add(&client->bell);
	if (!error)
		error = watch_add(&client->process);
	if (!error) {
		client->area->faults = host->faults;
		rnic_get(host->device, "purge", &purge);
		rnic_get(host->device, "on_demand", &on_demand);
		answer->ways = RNIC_PARENT_DOMAINS | (purge ? RNIC_PURGES : 0) | (on_demand ? RNIC_ON_DEMAND : 0);
		answer->id = client->id = next_id();
	}
	client->next = clients;
	clients = client;
	if (error)
		client_close(client);
	return error;
}

void client_close(struct client *client)
{
	for (struct client **at = &clients; *at; at = &(*at)->next)
		if (*at == client) {
			*at = client->next;
			break;
		}
	if (client->area)
		__atomic_store_n(&client->area->ended, 1, __ATOMIC_RELEASE);
	if (client->served.context) {
		int async_fd = client->served.async.fd;

		serve_close(&client->served);
		close(async_fd);
	}
	watch_remove(&client->bell);
	watch_remove(&client->process);
	if (client->memory_fd >= 0)
		close(client->memory_fd);
	for (uint32_t i = 0; i < client->extent_count; i++)
		munmap(client->extents[i].base, client->extents[i].size);
	free(client);
}

void clients_sweep(bool look)
{
	for (struct client *client = clients, *next; client; client = next) {
		next = client->next;
		if (look)
			client_is_there(client);
		if (client->gone)
			client_close(client);
	}
}
