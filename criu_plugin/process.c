#include "process.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "log.h"
#include "scope.h"

#define GUEST_LIBRARY "libmigrrdma.so"

static void read_name(struct process *process, const char *value)
{
	size_t length = strcspn(value, "\n");
	if (length >= sizeof(process->comm))
		length = sizeof(process->comm) - 1;
	memcpy(process->comm, value, length);
	process->comm[length] = '\0';
	for (char *letter = process->comm; *letter; letter++)
		if (!isprint((unsigned char)*letter)) /* it calls itself as it likes, and this is for a terminal */
			*letter = '?';
}

/* "NSpid: 4711 7 1": the last is the process's own view. */
static pid_t last_number(const char *value)
{
	long number = 0;
	char *end;

	for (;;) {
		long next = strtol(value, &end, 10);
		if (end == value)
			return (pid_t)number;
		number = next;
		value = end;
	}
}

/* Fills in the process and says who traces it; -1: it is gone. */
static pid_t read_status(int proc, const char *pid, struct process *process)
{
	char path[NAME_MAX + sizeof("/status")], line[256];
	pid_t tracer = -1;

	snprintf(path, sizeof(path), "%s/status", pid);
	int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	scoped_file file = fdopen(fd, "r");
	if (!file) {
		close(fd);
		return -1;
	}
	*process = (struct process){ .pid = atoi(pid) };
	while (fgets(line, sizeof(line), file)) {
		if (!strncmp(line, "Name:\t", 6))
			read_name(process, line + 6);
		else if (!strncmp(line, "TracerPid:", 10))
			tracer = atoi(line + 10);
		else if (!strncmp(line, "NSpid:", 6))
			process->vpid = last_number(line + 6);
	}
	if (!process->vpid)
		process->vpid = process->pid;
	return tracer;
}

/*
 * The tracees are what is being dumped. CRIU tells a plugin of its processes only through PAUSE_DEVICES and
 * CHECKPOINT_DEVICES, which another plugin may keep to itself (see struct criu_hooks), and its own list of them
 * has no stable layout. The kernel knows.
 */
static int collect_processes(struct holdings *holdings)
{
	scoped_dir proc = opendir("/proc");
	if (!proc) {
		pr_err("opening /proc: %s", strerror(errno));
		return -1;
	}
	const pid_t me = getpid();
	const struct dirent *entry;
	while ((entry = readdir(proc))) {
		struct process process;
		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		if (read_status(dirfd(proc), entry->d_name, &process) == me &&
		    array_append(&holdings->processes, process))
			return -1;
	}
	return 0;
}

/* One line of /proc/PID/maps. */
struct map {
	uint64_t start, end, offset;
	uint32_t prot;
	bool shared;
	unsigned int major, minor; /* of the filesystem */
	unsigned long inode;
	const char *path;
};

static bool parse_map(char *line, struct map *map)
{
	char perms[5];
	int path = 0;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %lu %n", &map->start, &map->end, perms,
		   &map->offset, &map->major, &map->minor, &map->inode, &path) < 7 ||
	    !path || map->end <= map->start || strlen(perms) != 4)
		return false;
	map->prot = (perms[0] == 'r' ? PROT_READ : 0) | (perms[1] == 'w' ? PROT_WRITE : 0) |
		    (perms[2] == 'x' ? PROT_EXEC : 0);
	map->shared = perms[3] == 's';
	line[strcspn(line, "\n")] = '\0';
	map->path = line + path;
	return true;
}

static bool is_guest_library(const struct map *map)
{
	const char *slash = strrchr(map->path, '/');
	return slash && !strcmp(slash + 1, GUEST_LIBRARY) && (map->prot & PROT_EXEC);
}

/* The device behind the mapping; the path in maps may be any name, or a name in another mount namespace. */
static void mapped_device(const char *sysfs, pid_t pid, const struct map *map, struct device *device,
			  dev_t *number)
{
	char path[96];
	struct stat status;

	*device = (struct device){ .kind = DEVICE_OTHER };
	snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, pid, map->start, map->end);
	if (stat(path, &status) || !S_ISCHR(status.st_mode))
		return;
	*number = status.st_rdev;
	device_of_number(sysfs, status.st_rdev, device);
}

static bool same_file(const struct map *left, const struct map *right)
{
	return left->inode == right->inode && left->major == right->major && left->minor == right->minor;
}

static int collect_mappings(struct holdings *holdings, size_t index, const char *sysfs)
{
	struct process *process = &holdings->processes.items[index];
	char path[32];
	scoped_memory char *line = NULL;
	size_t room = 0;
	struct map map, previous = { .inode = 0 };
	struct device device = { .kind = DEVICE_OTHER };
	dev_t number = 0;

	snprintf(path, sizeof(path), "/proc/%d/maps", process->pid);
	scoped_file file = fopen(path, "re");
	if (!file) {
		pr_err("opening %s (%s): %s", path, process->comm, strerror(errno));
		return -1;
	}
	while (getline(&line, &room, file) > 0) {
		if (!parse_map(line, &map)) {
			pr_err("%s (%s) has a line that cannot be read: %s", path, process->comm, line);
			return -1;
		}
		process->has_guest = process->has_guest || is_guest_library(&map);
		if (!map.inode)
			continue;
		/* A library has four or five mappings in a row: one look is enough. */
		if (!same_file(&map, &previous))
			mapped_device(sysfs, process->pid, &map, &device, &number);
		previous = map;
		if (device.kind == DEVICE_UVERBS) {
			struct held_mapping held = {
				.process = index,
				.start = map.start,
				.length = map.end - map.start,
				.offset = map.offset,
				.prot = map.prot,
				.shared = map.shared,
				.number = number,
				.device = device,
			};
			if (array_append(&holdings->mappings, held))
				return -1;
		}
	}
	return 0;
}

/* What descriptor `name` of the process is; false: it is gone, or nothing of ours. */
static bool held_device(int directory, const char *name, const char *sysfs, struct held_file *held)
{
	char link[PATH_MAX];
	struct stat status;

	ssize_t length = readlinkat(directory, name, link, sizeof(link) - 1);
	if (length <= 0)
		return false;
	link[length] = '\0';
	held->device = (struct device){ .kind = device_of_link(link) };
	/* Following the link of /proc opens nothing and reaches the file even where its path does not. */
	if (link[0] == '/' && !fstatat(directory, name, &status, 0) && S_ISCHR(status.st_mode)) {
		held->number = status.st_rdev;
		device_of_number(sysfs, status.st_rdev, &held->device);
	}
	return held->device.kind != DEVICE_OTHER;
}

DIR *process_folder(const struct process *process, const char *name)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/%s", process->pid, name);
	DIR *directory = opendir(path);
	if (!directory)
		pr_err("opening %s (%s): %s", path, process->comm, strerror(errno));
	return directory;
}

static int collect_files(struct holdings *holdings, size_t index, const char *sysfs)
{
	const struct process *process = &holdings->processes.items[index];
	const struct dirent *entry;

	scoped_dir directory = process_folder(process, "fd");
	if (!directory)
		return -1;
	while ((entry = readdir(directory))) {
		struct held_file held = { .process = index, .fd = atoi(entry->d_name) };
		if (entry->d_name[0] == '.')
			continue;
		if (held_device(dirfd(directory), entry->d_name, sysfs, &held) &&
		    array_append(&holdings->files, held))
			return -1;
	}
	return 0;
}

int holdings_collect(struct holdings *holdings, const char *sysfs)
{
	*holdings = (struct holdings){ 0 };
	if (collect_processes(holdings))
		return -1;
	for (size_t i = 0; i < holdings->processes.count; i++)
		if (collect_mappings(holdings, i, sysfs) || collect_files(holdings, i, sysfs))
			return -1;
	return 0;
}

static bool same_open_file(pid_t pid, int fd, int ours)
{
	return syscall(SYS_kcmp, getpid(), pid, KCMP_FILE, ours, fd) == 0;
}

/*
 * CRIU asks for the files in about the order in which we listed them, so the search begins where the last one
 * ended: a process with thousands of completion channels costs thousands of comparisons, not millions.
 */
const struct held_file *holdings_owner(struct holdings *holdings, int fd, enum device_kind kind)
{
	for (size_t i = 0; i < holdings->files.count; i++) {
		size_t at = (holdings->cursor + i) % holdings->files.count;
		const struct held_file *held = &holdings->files.items[at];

		if (held->device.kind == kind &&
		    same_open_file(holdings->processes.items[held->process].pid, held->fd, fd)) {
			holdings->cursor = at + 1;
			return held;
		}
	}
	return NULL;
}

void holdings_free(struct holdings *holdings)
{
	array_free(&holdings->processes);
	array_free(&holdings->files);
	array_free(&holdings->mappings);
}
