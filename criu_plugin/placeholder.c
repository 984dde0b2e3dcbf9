#include "placeholder.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "log.h"
#include "scope.h"
#include "wire/control.h"

/*
 * The reading end of a pipe that nobody can write to: every command fails, be it an ioctl (ENOTTY) or a write
 * (EBADF), a read is at its end, and nothing blocks. /dev/null would take written commands with success.
 */
static int device_placeholder(const struct image_file *file)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC)) {
		pr_err("making the placeholder of %s (file %#x, descriptor %d of process %d): %s", file->node,
		       file->id, file->fd, file->vpid, strerror(errno));
		return -1;
	}
	close(ends[1]);
	return ends[0];
}

/*
 * An eventfd can be in an epoll set and is never readable: a thread that waits goes on waiting. It stays at zero
 * even if there was an unread event, for what a read returns would be taken for the event itself, eight bytes with
 * a pointer. Events that the application has not seen are the guest's to keep and to give.
 */
static int events_placeholder(const struct image_file *file)
{
	int fd = eventfd(0, EFD_CLOEXEC | (file->flags & O_NONBLOCK ? EFD_NONBLOCK : 0));

	if (fd < 0)
		pr_err("making the placeholder of event channel %#x (descriptor %d of process %d): %s", file->id,
		       file->fd, file->vpid, strerror(errno));
	return fd;
}

int placeholder_file(const struct image_file *file)
{
	return file->kind == IMAGE_FILE_DEVICE ? device_placeholder(file) : events_placeholder(file);
}

/*
 * Zeros of the mapping's size: a late look at a queue finds it empty, a late store goes nowhere. Each mapping has
 * a memory of its own, as each had pages of its own. CRIU gives every mapping of a device a file of its own
 * (fd_id_generate_special), so that it uses each descriptor for one mapping and closes it after that.
 */
int placeholder_memory(const struct image_mapping *mapping)
{
	scoped_fd fd = memfd_create(MIG_PLACEHOLDER_NAME, MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)mapping->length)) {
		pr_err("making the memory for the mapping of %s at %#llx of process %d, %llu bytes: %s", mapping->node,
		       (unsigned long long)mapping->start, mapping->vpid, (unsigned long long)mapping->length,
		       strerror(errno));
		return -1;
	}
	return scope_keep(&fd);
}
