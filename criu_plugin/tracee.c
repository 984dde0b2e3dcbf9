/*
 * CRIU has seized the threads (PTRACE_SEIZE), so PTRACE_INTERRUPT stops one without a signal, and a system call that it
 * interrupts is begun again by the kernel when the thread goes on.
 */
#include "tracee.h"

#include <errno.h>
#include <elf.h>
#include <fcntl.h>
#include <linux/audit.h>
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

#if defined(__x86_64__)
#define NATIVE AUDIT_ARCH_X86_64
#define CALL_BYTES 2 /* of the instruction, also in the ways that 32-bit programs have */
#elif defined(__aarch64__)
#define NATIVE AUDIT_ARCH_AARCH64
#define CALL_BYTES 4
#else
#error "how does a program of this machine call the system?"
#endif

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

#define WHILE_HELD (PTRACE_O_EXITKILL | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE)

void tracees_end_with_us(const struct tracees *tracees, bool yes)
{
	/* CRIU's own option has to stay: its system call stops are told by it. */
	const long options = PTRACE_O_TRACESYSGOOD | (yes ? WHILE_HELD : 0);

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

/* Whether it stands because it has begun another one, which is traced from its first instruction on, as itself. */
static bool begins_another(struct tracees *tracees, size_t index, int status)
{
	struct tracee *tracee = &tracees->all.items[index];
	unsigned long tid = 0;

	if (!WIFSTOPPED(status) || (EVENT(status) != PTRACE_EVENT_FORK && EVENT(status) != PTRACE_EVENT_VFORK &&
				    EVENT(status) != PTRACE_EVENT_CLONE))
		return false;
	tracee->has_begun = true;
	tracee->runs = false;
	if (ptrace(PTRACE_GETEVENTMSG, tracee->tid, NULL, &tid))
		return true;
	struct tracee another = { .pid = EVENT(status) == PTRACE_EVENT_CLONE ? tracee->pid : (pid_t)tid, .tid = (pid_t)tid };

	if (array_append(&tracees->all, another))
		kill((pid_t)tid, SIGKILL);
	return true;
}

static void look_at(struct tracees *tracees, size_t index)
{
	int status;

	/* Anew each time: the array may have been moved. */
	while (!tracees->all.items[index].is_gone) {
		struct tracee *tracee = &tracees->all.items[index];
		pid_t got = waitpid(tracee->tid, &status, __WALL | WNOHANG);

		if (!got || (got < 0 && errno != ECHILD))
			return;
		if (got < 0)
			tracee->is_gone = true; /* another one has taken notice */
		else if (!has_ended(tracee, status) && !begins_another(tracees, index, status) && tracee->runs)
			send_on(tracee, status, PTRACE_CONT);
	}
}

bool tracees_are_whole(struct tracees *tracees)
{
	bool are_whole = true;

	for (size_t i = 0; i < tracees->all.count; i++)
		look_at(tracees, i);
	for (size_t i = 0; i < tracees->all.count; i++) {
		const struct tracee *tracee = &tracees->all.items[i];

		if (!tracee->is_gone && !tracee->has_begun)
			continue;
		if (are_whole)
			pr_err("thread %d of process %d %s while it was to stand until its restore is committed", tracee->tid,
			       tracee->pid, tracee->is_gone ? "has ended" : "has begun another thread or process");
		are_whole = false;
	}
	return are_whole;
}

static struct {
	pid_t *tids;
	size_t count;
	struct sigaction before;
} noticed;

static void notice(int signal_number)
{
	int error = errno;

	(void)signal_number;
	for (size_t i = 0; i < noticed.count; i++)
		waitpid(noticed.tids[i], NULL, __WALL | WNOHANG);
	errno = error;
}

void tracees_notice_ends(const struct tracees *tracees, bool yes)
{
	struct sigaction action = { .sa_handler = notice, .sa_flags = SA_RESTART };

	if (!yes) {
		if (noticed.tids)
			sigaction(SIGCHLD, &noticed.before, NULL);
		noticed.count = 0;
		free(noticed.tids);
		noticed.tids = NULL;
		return;
	}
	noticed.tids = calloc(tracees->all.count, sizeof(*noticed.tids));
	if (!noticed.tids)
		return;
	for (size_t i = 0; i < tracees->all.count; i++)
		if (!tracees->all.items[i].is_gone)
			noticed.tids[noticed.count++] = tracees->all.items[i].tid;
	sigaction(SIGCHLD, &action, &noticed.before);
	notice(SIGCHLD); /* of those that have ended before */
}

int64_t tracee_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static bool read_of(const struct tracee *tracee, const char *name, char *text, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", tracee->pid, tracee->tid, name);
	scoped_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);

	text[got > 0 ? got : 0] = '\0';
	return got > 0;
}

bool tracee_is_runnable(const struct tracee *tracee)
{
	char text[512];
	const char *end; /* of its name, which may hold anything */

	return read_of(tracee, "stat", text, sizeof(text)) && (end = strrchr(text, ')')) && !strncmp(end, ") R", 3);
}

int64_t tracee_ran_us(const struct tracee *tracee)
{
	char text[128];

	return read_of(tracee, "schedstat", text, sizeof(text)) ? strtoll(text, NULL, 10) / 1000 : 0;
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
	call->is_foreign = info.arch != NATIVE;
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

static int registers_of(const struct tracee *tracee, struct user_regs_struct *registers, int request)
{
	struct iovec area = { registers, sizeof(*registers) };

	return (int)ptrace((__typeof__(PTRACE_CONT))request, tracee->tid, (void *)NT_PRSTATUS, &area);
}

int tracee_set_result(const struct tracee *tracee, long result)
{
	struct user_regs_struct registers;
	int error = registers_of(tracee, &registers, PTRACE_GETREGSET);

#if defined(__x86_64__)
	registers.rax = (unsigned long)result;
#else
	registers.regs[0] = (unsigned long)result;
#endif
	if (!error)
		error = registers_of(tracee, &registers, PTRACE_SETREGSET);
	if (error)
		pr_err("answering thread %d of process %d: %s", tracee->tid, tracee->pid, strerror(errno));
	return error ? -1 : 0;
}

/* Has the kernel do nothing for the system call at whose begin it stands. */
static int skip_call(const struct tracee *tracee, struct user_regs_struct *registers)
{
#if defined(__x86_64__)
	struct user_regs_struct skipped = *registers;

	skipped.orig_rax = (unsigned long)-1;
	return registers_of(tracee, &skipped, PTRACE_SETREGSET);
#else
	int none = -1;
	struct iovec area = { &none, sizeof(none) };

	(void)registers;
	return (int)ptrace(PTRACE_SETREGSET, tracee->tid, (void *)NT_ARM_SYSTEM_CALL, &area);
#endif
}

int tracee_take_back(struct tracee *tracee)
{
	struct user_regs_struct before, registers;
	struct tracee_call unused;
	enum tracee_stop stop;

	if (registers_of(tracee, &before, PTRACE_GETREGSET) || skip_call(tracee, &before) || tracee_step(tracee))
		goto failed;
	do
		stop = tracee_await(tracee, PATIENCE_MS * 1000L, &unused);
	while (stop == TRACEE_RUNS && tracee_is_runnable(tracee));
	if (stop != TRACEE_EXIT || registers_of(tracee, &registers, PTRACE_GETREGSET))
		goto failed;
	/* As the kernel itself does of a call that is to be begun again; that it was one is forgotten by now (skip_call). */
#if defined(__x86_64__)
	registers.rip -= CALL_BYTES;
	registers.rax = before.orig_rax;
#else
	registers.pc -= CALL_BYTES;
	registers.regs[0] = before.regs[0];
#endif
	if (!registers_of(tracee, &registers, PTRACE_SETREGSET))
		return 0;
failed:
	pr_err("taking thread %d of process %d back from a system call: %s", tracee->tid, tracee->pid, strerror(errno));
	return -1;
}

static int give_up(const struct tracee *tracee)
{
	pr_err("thread %d of process %d does not stop: it has been in a system call for %d ms that the kernel does not interrupt",
	       tracee->tid, tracee->pid, PATIENCE_MS);
	return -1;
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
	const int64_t end = tracee_now_us() + PATIENCE_MS * 1000L;

	for (;;) {
		pid_t got = waitpid(tracee->tid, &status, __WALL | WNOHANG);

		if (!got || (got < 0 && errno == EINTR)) {
			if (tracee_now_us() > end && !tracee_is_runnable(tracee))
				return give_up(tracee);
			nap(NAP_US);
			continue;
		}
		if (got < 0 || has_ended(tracee, status)) {
			tracee->is_gone = true;
			return -1;
		}
		if (WIFSTOPPED(status) && EVENT(status) == PTRACE_EVENT_STOP)
			break;
		if (EVENT(status)) { /* it has begun another one: it may go no further, and is not what it was */
			tracee->has_begun = true;
			break;
		}
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
