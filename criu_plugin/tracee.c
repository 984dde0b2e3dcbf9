/*
 * CRIU has seized the threads (PTRACE_SEIZE), so PTRACE_INTERRUPT stops one without a signal, and a system call that it
 * interrupts is begun again by the kernel when the thread goes on.
 */
#include "tracee.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "process.h"
#include "scope.h"
#include "wire/control.h"

/* For so long a thread that was told to stop, or a process that was killed, is waited for. */
#define PATIENCE_MS 10000

#define EVENT(status) ((status) >> 16)

static void nap(long microseconds)
{
	struct timespec time = { 0, microseconds * 1000 };

	nanosleep(&time, NULL);
}

static bool is_control_thread(pid_t pid, pid_t tid)
{
	char path[64], name[32] = "";

	snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", pid, tid);
	scoped_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t got = read(fd, name, sizeof(name) - 1);
	return got > 0 && !strcmp(name, MIG_THREAD_NAME "\n");
}

static int collect_threads(struct tracees *tracees, const struct process *process)
{
	const struct dirent *entry;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/task", process->pid);
	scoped_dir directory = opendir(path);
	if (!directory) {
		pr_err("opening %s (%s): %s", path, process->comm, strerror(errno));
		return -1;
	}
	while ((entry = readdir(directory))) {
		struct tracee tracee = { .pid = process->pid, .tid = atoi(entry->d_name) };

		if (entry->d_name[0] == '.')
			continue;
		/* A name can be any thread's: only that of a process with the library counts. */
		tracee.is_control = process->has_guest && is_control_thread(tracee.pid, tracee.tid);
		if (array_append(&tracees->all, tracee))
			return -1;
	}
	return 0;
}

int tracees_collect(struct tracees *tracees)
{
	struct holdings holdings;
	int ret = holdings_collect(&holdings, SYSFS);

	*tracees = (struct tracees){ 0 };
	for (size_t i = 0; !ret && i < holdings.processes.count; i++)
		ret = collect_threads(tracees, &holdings.processes.items[i]);
	holdings_free(&holdings);
	return ret;
}

void tracees_free(struct tracees *tracees)
{
	array_free(&tracees->all);
}

void tracees_end_with_us(const struct tracees *tracees, bool yes)
{
	/* CRIU's own option has to stay: its system call stops are told by it. */
	const long options = PTRACE_O_TRACESYSGOOD | (yes ? PTRACE_O_EXITKILL : 0);

	for (size_t i = 0; i < tracees->all.count; i++)
		if (!tracees->all.items[i].is_gone)
			ptrace(PTRACE_SETOPTIONS, tracees->all.items[i].tid, NULL, options);
}

int tracee_run(struct tracee *tracee)
{
	if (ptrace(PTRACE_CONT, tracee->tid, NULL, NULL)) {
		pr_err("letting thread %d of process %d go on: %s", tracee->tid, tracee->pid, strerror(errno));
		return -1;
	}
	tracee->runs = true;
	return 0;
}

/*
 * A signal that stops the process must not stop it by this thread, whose other signals are blocked: it is kept, and sent
 * again by tracee_stop. Any other one can only be the thread's own fault, and takes its course.
 */
static void send_on(struct tracee *tracee, int status)
{
	int signal_number = WSTOPSIG(status);

	if (EVENT(status) || signal_number == (SIGTRAP | 0x80)) {
		signal_number = 0;
	} else if (signal_number == SIGSTOP || signal_number == SIGTSTP) {
		tracee->stop_signal = signal_number;
		signal_number = 0;
	}
	ptrace(PTRACE_CONT, tracee->tid, NULL, (long)signal_number);
}

/* Whether it has ended. */
static bool has_ended(struct tracee *tracee, int status)
{
	if (WIFEXITED(status) || WIFSIGNALED(status)) {
		tracee->is_gone = true;
		tracee->runs = false;
	}
	return tracee->is_gone;
}

void tracee_look_after(struct tracee *tracee)
{
	int status;

	while (tracee->runs && waitpid(tracee->tid, &status, __WALL | WNOHANG) == tracee->tid)
		if (!has_ended(tracee, status) && WIFSTOPPED(status))
			send_on(tracee, status);
}

int tracee_stop(struct tracee *tracee)
{
	int status;

	if (tracee->is_gone)
		return -1;
	if (!tracee->runs)
		return 0;
	if (ptrace(PTRACE_INTERRUPT, tracee->tid, NULL, NULL) && errno != ESRCH)
		pr_err("stopping thread %d of process %d: %s", tracee->tid, tracee->pid, strerror(errno));
	/* Without a deadline: only a system call that the kernel does not interrupt keeps it, and CRIU must find it stopped. */
	for (;;) {
		pid_t got = waitpid(tracee->tid, &status, __WALL);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 || has_ended(tracee, status)) {
			tracee->is_gone = true;
			return -1;
		}
		if (WIFSTOPPED(status) && EVENT(status) == PTRACE_EVENT_STOP)
			break;
		/* It had a stop of its own to report first; ours comes when it goes on. */
		send_on(tracee, status);
	}
	tracee->runs = false;
	if (tracee->stop_signal)
		kill(tracee->pid, tracee->stop_signal);
	tracee->stop_signal = 0;
	return 0;
}

/*
 * The kernel reports the end of a process's first thread only when those of all others have been taken notice of, and those
 * that are traced are their tracer's to notice.
 */
int tracees_kill(struct tracees *tracees)
{
	size_t left = tracees->all.count;
	int status;

	for (size_t i = 0; i < tracees->all.count; i++)
		if (!tracees->all.items[i].is_gone)
			kill(tracees->all.items[i].pid, SIGKILL);
	for (long waited = 0; left && waited < PATIENCE_MS * 1000L; waited += 500) {
		left = 0;
		for (size_t i = 0; i < tracees->all.count; i++) {
			struct tracee *tracee = &tracees->all.items[i];
			pid_t got = tracee->is_gone ? 0 : waitpid(tracee->tid, &status, __WALL | WNOHANG);

			if (got == tracee->tid)
				has_ended(tracee, status);
			else if (got < 0 && errno == ECHILD)
				tracee->is_gone = true; /* another one has noticed */
			left += !tracee->is_gone;
		}
		if (left)
			nap(500);
	}
	if (left)
		pr_err("%zu threads of the processes that were killed are still there after %d ms", left, PATIENCE_MS);
	return left ? -1 : 0;
}
