#include "lock_holder.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "scope.h"

/* Of pthread_mutex_t, from its futex: __count is between them. */
#define OWNER_OFFSET 8

/* As many are named. */
#define CANDIDATES 4

static ssize_t read_of_thread(pid_t pid, pid_t tid, const char *file, char *text, size_t size)
{
	char path[64];

	text[0] = '\0';
	snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", pid, tid, file);
	scoped_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);

	text[got > 0 ? got : 0] = '\0';
	return got;
}

void thread_name(pid_t pid, pid_t tid, char *comm)
{
	if (read_of_thread(pid, tid, "comm", comm, COMM_NAME) <= 0)
		strcpy(comm, "?");
	comm[strcspn(comm, "\n")] = '\0';
	for (char *letter = comm; *letter; letter++)
		if (!isprint((unsigned char)*letter)) /* a process calls its threads as it likes */
			*letter = '?';
}

/* Its number in its own namespace, as its process knows it. */
static pid_t own_number(pid_t pid, pid_t tid)
{
	char status[4096];

	read_of_thread(pid, tid, "status", status, sizeof(status));
	const char *line = strstr(status, "\nNSpid:");
	if (!line)
		return tid;
	size_t length = strcspn(++line, "\n");
	while (length && line[length - 1] >= '0' && line[length - 1] <= '9')
		length--;
	return atoi(line + length);
}

static bool waits_for(pid_t pid, pid_t tid, uint64_t word)
{
	char text[256], *end;

	/* "202 0x7f… …": the call and its arguments. */
	if (read_of_thread(pid, tid, "syscall", text, sizeof(text)) <= 0)
		return false;
	long number = strtol(text, &end, 10);
	return end != text && number == SYS_futex && strtoull(end, NULL, 16) == word;
}

static pid_t owner(const struct tracees *tracees, const struct tracee *waiter, uint64_t word)
{
	int number = 0;
	struct iovec here = { &number, sizeof(number) }, there = { (void *)(uintptr_t)(word + OWNER_OFFSET), sizeof(number) };

	if (!word || process_vm_readv(waiter->pid, &here, 1, &there, 1, 0) != sizeof(number) || number <= 0)
		return 0;
	for (size_t i = 0; i < tracees->all.count; i++) {
		const struct tracee *one = &tracees->all.items[i];

		if (one->pid == waiter->pid && one != waiter && !one->is_gone && own_number(one->pid, one->tid) == number)
			return one->tid;
	}
	return 0;
}

void lock_holder(const struct tracees *tracees, const struct tracee *waiter, uint64_t word, char *text)
{
	char comm[COMM_NAME];
	size_t used = 0;
	int named = 0, left = 0;
	pid_t tid = owner(tracees, waiter, word);

	if (tid) {
		thread_name(waiter->pid, tid, comm);
		snprintf(text, HOLDER_TEXT, "thread %d (%s)", tid, comm);
		return;
	}
	for (size_t i = 0; i < tracees->all.count; i++) {
		const struct tracee *one = &tracees->all.items[i];

		if (one->pid != waiter->pid || one->is_control || one->is_gone || (word && waits_for(one->pid, one->tid, word)))
			continue;
		if (named == CANDIDATES) {
			left++;
			continue;
		}
		thread_name(one->pid, one->tid, comm);
		used += (size_t)snprintf(text + used, HOLDER_TEXT - used, "%s %d (%s)", named++ ? " or" : "thread", one->tid, comm);
	}
	if (!named)
		snprintf(text, HOLDER_TEXT, "none of its other threads, or one that has ended,");
	else if (left)
		snprintf(text + used, HOLDER_TEXT - used, " or one of %d others", left);
}
