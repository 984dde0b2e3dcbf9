/*
 * CRIU has seized the threads (PTRACE_SEIZE), so PTRACE_INTERRUPT stops one without a signal, and a system call that it
 * interrupts is begun again by the kernel when the thread goes on.
 */
#include "tracee.h"

#include <errno.h>
#include <elf.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
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

	scoped_dir directory = process_folder(process, "task");
	if (!directory)
		return -1;
	while ((entry = readdir(directory))) {
		struct tracee tracee = { .pid = process->pid,
					 .vpid = process->vpid,
					 .tid = atoi(entry->d_name) };

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

static int let_go(struct tracee *tracee, int how)
{
	/* By its own name: glibc declares an enumeration here, other C libraries an int. */
	if (ptrace((__typeof__(PTRACE_CONT))how, tracee->tid, NULL, NULL)) {
		pr_err("letting thread %d of process %d go on: %s", tracee->tid, tracee->pid, strerror(errno));
		return -1;
	}
	tracee->runs = true;
	tracee->in_call = false;
	return 0;
}

int tracee_run(struct tracee *tracee)
{
	return let_go(tracee, PTRACE_CONT);
}

int tracee_step(struct tracee *tracee)
{
	return let_go(tracee, PTRACE_SYSCALL);
}

/*
 * A signal that stops the process must not stop it by this thread, whose other signals are blocked: it is kept, and sent
 * again by tracee_stop. Any other one can only be the thread's own fault, and takes its course.
 */
static void send_on(struct tracee *tracee, int status, int how)
{
	int signal_number = WSTOPSIG(status);

	if (EVENT(status) || signal_number == (SIGTRAP | 0x80)) {
		signal_number = 0;
	} else if (signal_number == SIGSTOP || signal_number == SIGTSTP) {
		tracee->stop_signal = signal_number;
		signal_number = 0;
	}
	ptrace((__typeof__(PTRACE_CONT))how, tracee->tid, NULL, (long)signal_number);
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
			send_on(tracee, status, PTRACE_CONT);
}

int64_t tracee_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static enum tracee_stop take_call_stop(struct tracee *tracee, struct tracee_call *call)
{
	struct __ptrace_syscall_info info = { 0 };

	tracee->runs = false;
	tracee->in_call = true;
	if (ptrace(PTRACE_GET_SYSCALL_INFO, tracee->tid, sizeof(info), &info) < 0 ||
	    info.op != PTRACE_SYSCALL_INFO_ENTRY)
		return TRACEE_EXIT;
	call->number = info.entry.nr;
	memcpy(call->arguments, info.entry.args, sizeof(call->arguments));
	return TRACEE_ENTRY;
}

/* Most calls end at once, so it looks some times before it begins to sleep in between. */
#define LOOKS 200
#define NAP_US 50

enum tracee_stop tracee_await(struct tracee *tracee, int64_t microseconds, struct tracee_call *call)
{
	const int64_t end = tracee_now_us() + microseconds;
	int status;

	for (int looks = 0;; looks++) {
		pid_t got = tracee->is_gone ? -1 : waitpid(tracee->tid, &status, __WALL | WNOHANG);

		if (got < 0 || (got && has_ended(tracee, status))) {
			tracee->is_gone = true;
			return TRACEE_GONE;
		}
		if (got && WSTOPSIG(status) == (SIGTRAP | 0x80))
			return take_call_stop(tracee, call);
		if (got)
			send_on(tracee, status, PTRACE_SYSCALL);
		if (tracee_now_us() >= end)
			return TRACEE_RUNS;
		if (looks < LOOKS)
			sched_yield();
		else
			nap(NAP_US);
	}
}

int tracee_set_result(const struct tracee *tracee, long result)
{
	struct user_regs_struct registers;
	struct iovec area = { &registers, sizeof(registers) };
	int error = (int)ptrace(PTRACE_GETREGSET, tracee->tid, (void *)NT_PRSTATUS, &area);

#if defined(__x86_64__)
	registers.rax = (unsigned long)result;
#elif defined(__aarch64__)
	registers.regs[0] = (unsigned long)result;
#else
#error "in which register does a system call return?"
#endif
	if (!error)
		error = (int)ptrace(PTRACE_SETREGSET, tracee->tid, (void *)NT_PRSTATUS, &area);
	if (error)
		pr_err("answering thread %d of process %d: %s", tracee->tid, tracee->pid, strerror(errno));
	return error ? -1 : 0;
}

int tracee_stop(struct tracee *tracee)
{
	int status;

	if (tracee->is_gone)
		return -1;
	if (!tracee->runs && !tracee->in_call)
		return 0;
	/* At a system call it is told to stop first: it then goes as far as the call's end, and makes no step of its own. */
	if (ptrace(PTRACE_INTERRUPT, tracee->tid, NULL, NULL) && errno != ESRCH)
		pr_err("stopping thread %d of process %d: %s", tracee->tid, tracee->pid, strerror(errno));
	if (tracee->in_call)
		tracee_run(tracee);
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
		/* It had a stop of its own to report first, and any stop takes a pending interruption with it. */
		ptrace(PTRACE_INTERRUPT, tracee->tid, NULL, NULL);
		send_on(tracee, status, PTRACE_CONT);
	}
	tracee->runs = tracee->in_call = false;
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
