/*
 * Application memory, reached as a NIC does it: while the application computes or sleeps. process_vm_readv and writev check
 * the page tables, so what is not mapped is EFAULT, which the engine makes a protection error of.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "daemon.h"

#define MOST_SPANS 64

/*
 * A process id may be another process's by now, and an exec leaves the same id with other memory. The descriptor of the
 * address space that the device was opened in cannot be mistaken: nothing can be read there any more once it has gone.
 */
bool client_is_there(struct client *client)
{
	uint64_t magic = 0;

	if (client->checked == turn)
		return !client->gone;
	client->checked = turn;
	if (pread(client->memory_fd, &magic, sizeof(magic), (off_t)client->area_at) != sizeof(magic) ||
	    magic != RNIC_AREA_MAGIC)
		client->gone = true;
	return !client->gone;
}

typedef ssize_t transfer(pid_t pid, const struct iovec *local, unsigned long local_count, const struct iovec *remote,
			 unsigned long remote_count, unsigned long flags);

static int move(void *process, const struct rnic_span *spans, int count, void *buffer, transfer *transfer)
{
	struct client *client = process;
	char *at = buffer;

	if (!client_is_there(client))
		return EFAULT;
	while (count > 0) {
		struct iovec remote[MOST_SPANS], local = { at, 0 };
		int part = count < MOST_SPANS ? count : MOST_SPANS;

		for (int i = 0; i < part; i++) {
			remote[i] = (struct iovec){ (void *)(uintptr_t)spans[i].address, spans[i].length };
			local.iov_len += spans[i].length;
		}
		if (local.iov_len && transfer(client->pid, &local, 1, remote, (unsigned long)part, 0) != (ssize_t)local.iov_len)
			return EFAULT;
		at += local.iov_len;
		spans += part;
		count -= part;
	}
	return 0;
}

static int read_memory(void *process, const struct rnic_span *spans, int count, void *buffer)
{
	return move(process, spans, count, buffer, process_vm_readv);
}

static int write_memory(void *process, const struct rnic_span *spans, int count, const void *buffer)
{
	return move(process, spans, count, (void *)buffer, process_vm_writev);
}

const struct rnic_sinks client_memory = { .read = read_memory, .write = write_memory };

/* A kernel pins a region's pages when it is registered, for writing if any side may write: EFAULT where it cannot. */
int client_check_region(struct client *client, uint64_t address, uint64_t length, bool writes)
{
	uint64_t start, end, reached = address, last = address + length;
	char path[32], line[512], perms[5];

	if (!length)
		return 0;
	if (last < address || !client_is_there(client))
		return EFAULT;
	snprintf(path, sizeof(path), "/proc/%d/maps", client->pid);
	FILE *maps = fopen(path, "re");
	if (!maps)
		return EFAULT;
	while (reached < last && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &start, &end, perms) != 3 || end <= reached)
			continue;
		if (start > reached || perms[0] != 'r' || (writes && perms[1] != 'w'))
			break;
		reached = end;
	}
	fclose(maps);
	return reached < last ? EFAULT : 0;
}
