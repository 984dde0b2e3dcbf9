#include "move/placeholders.h"

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/descriptors.h"
#include "base/pages.h"
#include "wire/control.h"

#define PLACEHOLDER "/memfd:" MIG_PLACEHOLDER_NAME

/* The memory that took the place of the device's: which files these are. */
struct inodes {
	uint64_t *inode;
	uint32_t count, room;
};

static struct inodes noted;

/* Without memory for it a descriptor is left open, which does no harm. */
static void placeholders_remember(struct inodes *inodes, uint64_t inode)
{
	if (inodes->count == inodes->room) {
		uint32_t room = inodes->room ? inodes->room * 2 : 256;
		uint64_t *larger = mig_pages_alloc(room * sizeof(*larger));

		if (!larger)
			return;
		if (inodes->count)
			memcpy(larger, inodes->inode, inodes->count * sizeof(*larger));
		mig_pages_free(inodes->inode);
		inodes->inode = larger;
		inodes->room = room;
	}
	inodes->inode[inodes->count++] = inode;
}

/* "start-end perms offset device inode   path" */
static void placeholders_look_at(const char *line, struct inodes *inodes, int unmaps)
{
	uintptr_t bounds[2] = { 0, 0 };
	uint64_t inode = 0;

	if (!strstr(line, PLACEHOLDER))
		return;
	for (int i = 0; i < 2; line++) {
		if (*line >= '0' && *line <= '9')
			bounds[i] = bounds[i] * 16 + (uintptr_t)(*line - '0');
		else if (*line >= 'a' && *line <= 'f')
			bounds[i] = bounds[i] * 16 + (uintptr_t)(*line - 'a' + 10);
		else
			i++;
	}
	for (int spaces = 0; spaces < 3 && *line; line++)
		spaces += *line == ' ';
	for (; *line >= '0' && *line <= '9'; line++)
		inode = inode * 10 + (uint64_t)(*line - '0');
	if (unmaps && bounds[1] > bounds[0])
		syscall(SYS_munmap, bounds[0], bounds[1] - bounds[0]);
	else
		placeholders_remember(inodes, inode);
}

static void each_mapping(struct inodes *inodes, int unmaps)
{
	char buffer[8192];
	size_t used = 0;
	ssize_t got;
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	while ((got = read(fd, buffer + used, sizeof(buffer) - 1 - used)) > 0) {
		char *line = buffer, *end;

		used += (size_t)got;
		buffer[used] = '\0';
		while ((end = strchr(line, '\n'))) {
			*end = '\0';
			placeholders_look_at(line, inodes, unmaps);
			line = end + 1;
		}
		used -= (size_t)(line - buffer);
		memmove(buffer, line, used);
		if (used == sizeof(buffer) - 1)
			used = 0; /* a path of 8 KiB is none of ours */
	}
	close(fd);
}

/*
 * CRIU before 3.19 leaves the plugin's descriptor of each mapping open. The name alone could be an application's own;
 * the very file that was mapped in the device's place cannot.
 */
static void close_if_mapped(int fd, const char *target, void *argument)
{
	const struct inodes *inodes = argument;
	struct stat stat;

	if (strcmp(target, PLACEHOLDER " (deleted)") || mig_stat_descriptor(fd, &stat))
		return;
	for (uint32_t i = 0; i < inodes->count; i++)
		if (inodes->inode[i] == stat.st_ino) {
			close(fd);
			return;
		}
}

void mig_note_placeholders(void)
{
	each_mapping(&noted, 0);
}

void mig_remove_placeholders(void)
{
	each_mapping(&noted, 1);
	if (noted.count)
		mig_each_descriptor(close_if_mapped, &noted);
	mig_pages_free(noted.inode);
	noted = (struct inodes){ NULL, 0, 0 };
}
