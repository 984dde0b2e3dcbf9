/*
 * Memory for queues that the daemon sees, too: blocks of a power of two, each with a line in front that says where it is. They
 * come from extents of 1 MiB or, larger ones, from an extent of their own; what was freed serves the next of its size.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "remote.h"

#define EXTENT (1u << 20)
#define SMALLEST 8 /* 256 bytes */

struct remote_block {
	_Alignas(RNIC_LINE) uint32_t class;
	rnic_reference reference; /* of what is behind this line */
	struct remote_block *next;
};

int remote_memory(size_t size, void **base)
{
	int fd = memfd_create("rdma-device", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -1;
	/* Never shorter: the daemon, which has it mapped as well, must not meet its end. */
	if (!ftruncate(fd, (off_t)size) && !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK)) {
		*base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (*base != MAP_FAILED)
			return fd;
	}
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* Must hold the heap's lock. */
static int add_extent(struct remote_link *remote, size_t size)
{
	struct rnic_call call = { .name = CALL_AREA };
	void *base;

	if (remote->extent_count == RNIC_EXTENTS)
		return ENOMEM;
	int fd = remote_memory(size, &base);
	if (fd < 0)
		return errno;
	call.area.size = size;
	call.area.fd = fd;
	int error = device_link_call(&remote->link, &call);
	close(fd);
	if (!error && call.handle != remote->extent_count)
		error = EPROTO;
	if (error) {
		munmap(base, size);
		return error;
	}
	remote->extents[remote->extent_count++] = (struct remote_extent){ base, size, 0 };
	return 0;
}

static struct remote_block *carve(struct remote_link *remote, uint32_t class)
{
	size_t size = (size_t)1 << class;
	uint32_t last = remote->extent_count - 1;

	if (remote->extents[last].size - remote->extents[last].used < size) {
		if ((errno = add_extent(remote, size > EXTENT ? size : EXTENT)))
			return NULL;
		last++;
	}
	struct remote_extent *extent = &remote->extents[last];
	struct remote_block *block = (struct remote_block *)(extent->base + extent->used);

	block->class = class;
	block->reference = (uint64_t)last << RNIC_EXTENT_SHIFT | (extent->used + sizeof(*block));
	extent->used += size;
	return block;
}

int device_link_alloc(struct device_link *link, size_t size, void **memory, rnic_reference *reference)
{
	struct remote_link *remote = (struct remote_link *)link;
	uint32_t class = SMALLEST;

	while (class < REMOTE_CLASSES && (size_t)1 << class < size + sizeof(struct remote_block))
		class++;
	if (class == REMOTE_CLASSES)
		return ENOMEM;
	pthread_mutex_lock(&remote->heap_lock);
	struct remote_block *block = remote->unused[class];
	if (block)
		remote->unused[class] = block->next;
	else
		block = carve(remote, class);
	int error = block ? 0 : errno;
	pthread_mutex_unlock(&remote->heap_lock);
	if (error)
		return error;
	*memory = block + 1;
	*reference = block->reference;
	memset(*memory, 0, size);
	return 0;
}

void device_link_free(struct device_link *link, void *memory)
{
	struct remote_link *remote = (struct remote_link *)link;
	struct remote_block *block = (struct remote_block *)memory - 1;

	if (!memory)
		return;
	pthread_mutex_lock(&remote->heap_lock);
	block->next = remote->unused[block->class];
	remote->unused[block->class] = block;
	pthread_mutex_unlock(&remote->heap_lock);
}
