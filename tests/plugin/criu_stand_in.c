/*
 * Plays CRIU for the plugin, natively and under the sanitisers: loads it as CRIU does and calls its hooks in
 * CRIU's order, on processes that it really traces. What the plugin logs goes to stderr, one line of stdout says
 * what each hook answered.
 *
 *	criu_stand_in PLUGIN DIRECTORY dump|pre-dump COMMAND …
 *		runs COMMAND, which says "ready" when it holds what it is to hold, and "dumps" it and its children
 *	criu_stand_in PLUGIN DIRECTORY restore {file ID | mapping ADDRESS OFFSET}…
 *	criu_stand_in PLUGIN DIRECTORY late COMMAND …
 *		runs COMMAND, which says "ready", stops all of its threads and releases them after the late hook
 *	criu_stand_in PLUGIN DIRECTORY judge
 *		loads the image in each subdirectory of DIRECTORY
 *
 * MIGRRDMA_TEST_GOES_ON: a dump lets the first process go on, and says what that says then.
 * MIGRRDMA_TEST_CHILD: what is held is the command and its child; "dies": that dies after the late hook, and all is ended as
 * CRIU does then.
 * MIGRRDMA_TEST_INVENTORY=named|unnamed|old: what the inventory image says of the plugin (default: named).
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "criu.h"

static int image_directory = -1;
static int inventory; /* how often the plugin is named; -1: an image from before there was an inventory */
static struct criu_plugin_desc *plugin;

__attribute__((visibility("default"))) void print_on_level(unsigned int level, const char *format, ...)
{
	va_list arguments;

	(void)level;
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
}

__attribute__((visibility("default"))) int criu_get_image_dir(void)
{
	return image_directory;
}

#ifdef BEFORE_INVENTORY /* CRIU 3.17 and 4.0 */
#define KNOWN_HOOKS CRIU_HOOKS_BEFORE_4
#else
#define KNOWN_HOOKS CRIU_HOOKS
__attribute__((visibility("default"))) int add_inventory_plugin(const char *name)
{
	printf("inventory %s\n", name);
	return 0;
}

__attribute__((visibility("default"))) bool check_and_remove_inventory_plugin(const char *name, size_t length)
{
	if (strlen(name) != length)
		abort();
	if (inventory < 0)
		return true;
	return inventory ? inventory--, true : false;
}
#endif

static void __attribute__((noreturn)) fail(const char *what)
{
	perror(what);
	exit(2);
}

static void load(const char *path)
{
	void *handle = dlopen(path, RTLD_LAZY);
	if (!handle) {
		fprintf(stderr, "%s\n", dlerror());
		exit(2);
	}
	plugin = dlsym(handle, "CR_PLUGIN_DESC");
	if (!plugin || plugin->version > CRIU_PLUGIN_VERSION || plugin->max_hooks > KNOWN_HOOKS)
		fail("CR_PLUGIN_DESC");
}

static int begin(int stage, const char *directory)
{
	const char *says = getenv("MIGRRDMA_TEST_INVENTORY");

	inventory = !says || !strcmp(says, "named") ? 1 : !strcmp(says, "old") ? -1 : 0;
	image_directory = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (image_directory < 0)
		fail(directory);
	int ret = plugin->init(stage);
	printf("init %d\n", ret);
	return ret;
}

static void end(int stage, int ret)
{
	plugin->exit(stage, ret);
	close(image_directory);
}

/* Whatever CRIU itself cannot dump it asks the plugins about. */
static void dump_files(pid_t pid, int *id)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	DIR *directory = opendir(path);
	if (!directory)
		fail(path);
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	const struct dirent *entry;
	while ((entry = readdir(directory))) {
		int fd = atoi(entry->d_name);
		if (entry->d_name[0] == '.' || fd < 3)
			continue;
		int local = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
		if (local < 0)
			fail("pidfd_getfd");
		int answer = plugin->hooks.dump_ext_file(local, ++*id);
		printf("file %d %d\n", fd, answer);
		close(local);
	}
	close(pidfd);
	closedir(directory);
}

static void dump_mappings(pid_t pid)
{
	char path[64], line[512];
	unsigned long start, stop;
	struct stat status;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	FILE *maps = fopen(path, "re");
	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx", &start, &stop) != 2)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", pid, start, stop);
		if (stat(path, &status) || S_ISREG(status.st_mode))
			continue;
		int fd = open(path, O_PATH | O_CLOEXEC);
		printf("mapping %d\n", plugin->hooks.handle_device_vma(fd, &status));
		close(fd);
	}
	if (maps)
		fclose(maps);
}

static int children_of(pid_t pid, pid_t *pids, int room)
{
	char path[64];
	int count = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	FILE *children = fopen(path, "re");
	while (children && count < room && fscanf(children, "%d", &pids[count]) == 1)
		count++;
	if (children)
		fclose(children);
	return count;
}

static void seize(pid_t pid)
{
	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) || ptrace(PTRACE_INTERRUPT, pid, NULL, NULL))
		fail("ptrace");
	waitpid(pid, NULL, __WALL);
}

static void wait_until_ready(int output)
{
	char line[6] = "";
	for (size_t got = 0; got < sizeof(line);) {
		ssize_t part = read(output, line + got, sizeof(line) - got);
		if (part <= 0)
			fail("the command did not say that it is ready");
		got += (size_t)part;
	}
	if (memcmp(line, "ready\n", sizeof(line)) != 0)
		fail("the command said something else");
}

/* Returns where its output can be read. */
static int start(char **command, pid_t *pid)
{
	int output[2];

	if (pipe(output))
		fail("pipe");
	*pid = fork();
	if (!*pid) {
		dup2(output[1], 1);
		close(output[0]);
		close(output[1]);
		execvp(command[0], command);
		_exit(127);
	}
	close(output[1]);
	wait_until_ready(output[0]);
	return output[0];
}

static int threads_of(pid_t pid, pid_t *tids, int room)
{
	char path[64];
	int count = 0;
	const struct dirent *entry;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *directory = opendir(path);
	while (directory && count < room && (entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			tids[count++] = atoi(entry->d_name);
	if (directory)
		closedir(directory);
	return count;
}

static void seize_all(pid_t pid)
{
	pid_t tids[16];
	int count = threads_of(pid, tids, 16);

	for (int i = 0; i < count; i++) {
		seize(tids[i]);
		ptrace(PTRACE_SETOPTIONS, tids[i], NULL, PTRACE_O_TRACESYSGOOD);
	}
}

static void release(pid_t pid, int output)
{
	pid_t tids[16];
	char said[32] = "";
	int released = 0, count = threads_of(pid, tids, 16);

	for (int i = 0; i < count; i++)
		released += !ptrace(PTRACE_DETACH, tids[i], NULL, NULL);
	printf("released %d of %d\n", released, count);
	if (count && released == count && read(output, said, sizeof(said) - 1) > 0)
		printf("said %s", said);
}

/* As CRIU's finalize_restore_detach, which does not find one thread, and what its restore_root_task does then. */
static int end_all(pid_t pid, pid_t child)
{
	siginfo_t ended;

	kill(child, SIGKILL);
	waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT | __WALL); /* or another one has taken notice */
	if (!ptrace(PTRACE_DETACH, child, NULL, NULL))
		fail("it has not died");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	puts("ended");
	return -1;
}

/* As CRIU's restore_root_task, from where all threads are stopped. */
static int late(const char *directory, char **command)
{
	pid_t pid, child = 0;
	const char *with_child = getenv("MIGRRDMA_TEST_CHILD");
	int output = start(command, &pid);
	int ret = begin(CRIU_STAGE_RESTORE, directory);

	seize_all(pid);
	if (with_child && children_of(pid, &child, 1))
		seize_all(child);
	printf("late %d\n", plugin->hooks.resume_devices_late(pid));
	if (with_child && !strcmp(with_child, "dies"))
		ret = end_all(pid, child);
	else if (!kill(pid, 0))
		release(pid, output);
	if (kill(pid, 0))
		puts("nothing is left");
	end(CRIU_STAGE_RESTORE, ret);
	kill(pid, SIGKILL);
	while (waitpid(-1, NULL, __WALL) > 0)
		;
	return ret;
}

/* What CRIU would not have in its images: its list is complete before the first hook; no command has a child before. */
static int unstopped_of(pid_t pid)
{
	pid_t tids[16], child;
	char path[64], line[128];
	int unstopped = 0, count = threads_of(pid, tids, 16);

	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, tids[i]);
		FILE *status = fopen(path, "re");
		while (status && fgets(line, sizeof(line), status))
			unstopped += !strcmp(line, "TracerPid:\t0\n");
		if (status)
			fclose(status);
		snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, tids[i]);
		FILE *children = fopen(path, "re");
		while (children && fscanf(children, "%d", &child) == 1)
			unstopped++;
		if (children)
			fclose(children);
	}
	return unstopped;
}

static int dump(int stage, const char *directory, char **command)
{
	pid_t pids[9];
	int id = 0, output = start(command, &pids[0]);

	int count = 1 + children_of(pids[0], pids + 1, 8);
	int ret = begin(stage, directory);
	for (int i = 0; i < count && !ret; i++)
		seize_all(pids[i]);
	for (int i = 0; i < count && !ret && stage == CRIU_STAGE_DUMP && plugin->max_hooks > CRIU_HOOKS_BEFORE_4; i++) {
		int answer = plugin->hooks.checkpoint_devices(pids[i]);
		printf("checkpoint %d\n", answer);
		ret = answer == -ENOTSUP ? 0 : answer;
	}
	for (int i = 0; i < count && !ret; i++) {
		dump_mappings(pids[i]);
		if (stage == CRIU_STAGE_DUMP)
			dump_files(pids[i], &id);
	}
	/* What CRIU finds in the queue of a unix socket it opens in itself: nobody else holds it. */
	const char *in_flight = getenv("MIGRRDMA_TEST_IN_FLIGHT");
	if (in_flight) {
		int fd = open(in_flight, O_RDWR | O_CLOEXEC);
		printf("in-flight %d\n", plugin->hooks.dump_ext_file(fd, ++id));
		close(fd);
	}
	end(stage, ret);
	if (getenv("MIGRRDMA_TEST_GOES_ON")) {
		printf("unstopped %d\n", unstopped_of(pids[0]));
		release(pids[0], output);
	}
	close(output);
	for (int i = count - 1; i >= 0; i--)
		kill(pids[i], SIGKILL);
	while (waitpid(-1, NULL, __WALL) > 0)
		;
	return ret;
}

static void describe(int fd)
{
	char path[64], link[128];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ssize_t length = readlink(path, link, sizeof(link) - 1);
	link[length > 0 ? length : 0] = '\0';
	printf(" %s%s", link, fcntl(fd, F_GETFL) & O_NONBLOCK ? " nonblocking" : "");
}

static int restore_file(uint32_t id)
{
	uint64_t value = 0;
	int fd = plugin->hooks.restore_ext_file((int)id);

	printf("file %d", fd < 0 ? fd : 0);
	if (fd >= 0) {
		describe(fd);
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
		ssize_t got = read(fd, &value, sizeof(value));
		printf(" read %zd %llu", got, (unsigned long long)value);
		printf(" write %zd", write(fd, &value, sizeof(value)));
		close(fd);
	}
	printf("\n");
	return fd;
}

static void restore_mapping(uint64_t address, uint64_t offset)
{
	struct stat status = { 0 };
	uint64_t new_offset = 77;
	int fd = -1;
	int answer = plugin->hooks.update_vma_map("/dev/null", address, offset, &new_offset, &fd);

	printf("mapping %d", answer);
	if (answer == 1) {
		fstat(fd, &status);
		printf(" offset %llu size %lld", (unsigned long long)new_offset, (long long)status.st_size);
		describe(fd);
		char *memory = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
				    (off_t)new_offset);
		if (memory == MAP_FAILED || memory[0] || memory[status.st_size - 1])
			fail("the memory");
		memory[0] = memory[status.st_size - 1] = 1;
		munmap(memory, (size_t)status.st_size);
		close(fd);
	}
	printf("\n");
}

/* As process 1 of a pid namespace (unshare --pid --fork), so that the image can know its pid. */
static int restore(const char *directory, char **arguments)
{
	if (begin(CRIU_STAGE_RESTORE, directory))
		return 1;
	for (char **argument = arguments; *argument; argument++) {
		if (!strcmp(*argument, "file")) {
			restore_file((uint32_t)strtoul(*++argument, NULL, 0));
		} else if (!strcmp(*argument, "mapping")) {
			uint64_t address = strtoull(*++argument, NULL, 0);
			restore_mapping(address, strtoull(*++argument, NULL, 0));
		}
	}
	end(CRIU_STAGE_RESTORE, 0);
	return 0;
}

static int judge(const char *directory)
{
	DIR *list = opendir(directory);
	const struct dirent *entry;
	char path[4096];

	while (list && (entry = readdir(list))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		printf("%s ", entry->d_name);
		int ret = begin(CRIU_STAGE_RESTORE, path);
		for (int id = 0; !ret && id < 4; id++) {
			int fd = plugin->hooks.restore_ext_file(id);
			if (fd >= 0)
				close(fd);
		}
		end(CRIU_STAGE_RESTORE, ret);
	}
	closedir(list);
	return 0;
}

int main(int count, char **arguments)
{
	if (count < 4)
		return 2;
	load(arguments[1]);
	if (!strcmp(arguments[3], "dump"))
		return dump(CRIU_STAGE_DUMP, arguments[2], arguments + 4) ? 1 : 0;
	if (!strcmp(arguments[3], "pre-dump"))
		return dump(CRIU_STAGE_PRE_DUMP, arguments[2], arguments + 4) ? 1 : 0;
	if (!strcmp(arguments[3], "restore"))
		return restore(arguments[2], arguments + 4);
	if (!strcmp(arguments[3], "late"))
		return late(arguments[2], arguments + 4) ? 1 : 0;
	if (!strcmp(arguments[3], "judge"))
		return judge(arguments[2]);
	return 2;
}
