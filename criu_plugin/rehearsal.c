#include "rehearsal.h"

#include <linux/futex.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lock_holder.h"
#include "log.h"
#include "process.h"
#include "tracee.h"
#include "wire/control.h"

/*
 * A parked guest's thread asks every 10 ms. One that does not is known by what it does instead: by as many calls, or by one that
 * no parked guest makes and that lasts for so long. Only of one that does nothing at all nothing is known but the time.
 */
#define CALLS_WITHOUT_ASKING 64
#define WAITS_ELSEWHERE_US 300000
#define DOES_NOTHING_US 5000000

/* How long it is waited for before the deadline is looked at. */
#define TURN_US 300000

/* So long it may wait for a lock, or compute, before another thread is led on. */
#define WAITS_US 500
#define COMPUTES_US 500000

/* So far another thread is led, at first and when that was not enough. */
#define LEAD_US 2000
#define LEAD_FAR_US 20000

/* Each leads others for some hundredths of a second; what the deadline leaves of them is enough on a busy machine, too. */
#define PASSES 256

/* So often all others are led while one of them could only go on by a call that it must not make. */
#define ROUNDS_AT_A_BRINK 25

enum outcome {
	PROVED,
	LED, /* done, but other threads were led on meanwhile: what was free may be taken now */
	NOT_ASKED,
	STUCK,
	STRAYED, /* the guest's thread would begin or end something, which it does not in a restore */
};

struct rehearsal {
	struct tracees *tracees;
	struct tracee *control;
	int64_t deadline;
	int64_t lead_us;
	uint64_t word;	/* what the control thread waits for, or has waited for last; 0: nothing */
	pid_t at_brink; /* a thread that stands before such a call; 0: none */
	int rounds;	/* of leading since then */
	bool is_lost;	/* a thread that was led has ended, or does not stop */
};

static bool is_futex(const struct tracee_call *call, int first, int second)
{
	int operation = (int)call->arguments[1] & FUTEX_CMD_MASK;

	return call->number == SYS_futex && (operation == first || operation == second);
}

/*
 * CRIU has made its list of threads and processes before anything is proved: what a thread begins now nobody stops and nothing
 * has in the image, and what has ended CRIU does not find. The numbers of another ABI are not looked up.
 */
static bool begins_or_ends(const struct tracee_call *call)
{
	switch (call->number) {
	case SYS_clone:
	case SYS_clone3:
#ifdef SYS_fork
	case SYS_fork:
	case SYS_vfork:
#endif
	case SYS_execve:
	case SYS_execveat:
	case SYS_exit:
	case SYS_exit_group:
		return true;
	default:
		return call->is_foreign;
	}
}

static bool is_told(const struct tracee_call *call, uint64_t what)
{
	return call->number == SYS_prctl && call->arguments[0] == MIG_PRCTL && call->arguments[1] == what;
}

static bool is_in_vain(const struct rehearsal *rehearsal)
{
	return rehearsal->is_lost || rehearsal->rounds >= ROUNDS_AT_A_BRINK || tracee_now_us() > rehearsal->deadline;
}

/*
 * Whether it would go on and has not had a processor for so long since it had had it for `ran_us`. On a busy machine a thread
 * of a low priority may wait for one longer than it is led: it would be stopped each time before it has made a step.
 */
static bool is_kept_waiting(const struct tracee *tracee, int64_t ran_us, int64_t microseconds)
{
	return tracee_is_runnable(tracee) && tracee_ran_us(tracee) - ran_us < microseconds;
}

/*
 * Leads one thread until it wakes whoever waits for the word, or waits itself, or its time is up. Whether the control thread
 * has come on; *stop is what it has come to.
 */
static bool lead(struct rehearsal *rehearsal, struct tracee *other, uint64_t word, enum tracee_stop *stop,
		 struct tracee_call *call)
{
	const int64_t end = tracee_now_us() + rehearsal->lead_us, ran_us = tracee_ran_us(other);
	struct tracee_call its;
	bool woke = false, waits = false;

	if (tracee_step(other))
		return false;
	while (!woke && !waits && !is_in_vain(rehearsal) &&
	       (tracee_now_us() < end || is_kept_waiting(other, ran_us, rehearsal->lead_us))) {
		enum tracee_stop at = tracee_await(other, 100, &its);

		if (at == TRACEE_GONE)
			break;
		if (at == TRACEE_RUNS) {
			*stop = tracee_await(rehearsal->control, 0, call);
			if (*stop != TRACEE_RUNS)
				break;
			continue;
		}
		if (at == TRACEE_ENTRY && begins_or_ends(&its)) {
			rehearsal->at_brink = other->tid;
			rehearsal->is_lost |= tracee_take_back(other) != 0;
			break;
		}
		if (at == TRACEE_ENTRY) {
			woke = is_futex(&its, FUTEX_WAKE, FUTEX_WAKE_BITSET) && its.arguments[0] == word;
			waits = is_futex(&its, FUTEX_WAIT, FUTEX_WAIT_BITSET);
		}
		/* To wake is done when the call has ended; it is stopped there and has not gone on. */
		if (!waits)
			tracee_step(other);
		if (woke)
			tracee_await(other, LEAD_FAR_US, &its);
	}
	rehearsal->is_lost |= tracee_stop(other) != 0;
	/* Who is led next may take what this one has let go of, so the one that was woken is given time to. */
	do {
		if (*stop == TRACEE_RUNS)
			*stop = tracee_await(rehearsal->control, woke ? LEAD_US : 0, call);
	} while (woke && *stop == TRACEE_RUNS && tracee_is_runnable(rehearsal->control) && !is_in_vain(rehearsal));
	return *stop != TRACEE_RUNS;
}

/* One after the other, for whoever goes on together takes new locks. */
static enum tracee_stop lead_others(struct rehearsal *rehearsal, uint64_t word, struct tracee_call *call)
{
	enum tracee_stop stop = TRACEE_RUNS;

	for (size_t i = 0; i < rehearsal->tracees->all.count; i++) {
		struct tracee *other = &rehearsal->tracees->all.items[i];

		if (other->pid == rehearsal->control->pid && !other->is_control && !other->is_gone &&
		    lead(rehearsal, other, word, &stop, call))
			return stop;
	}
	rehearsal->rounds += rehearsal->at_brink != 0;
	rehearsal->lead_us = LEAD_FAR_US;
	return stop;
}

/* It looks for a file, asks, and naps; the nap in which CRIU has met it is begun again by a call of its own. */
static bool is_of_a_parked_guest(const struct tracee_call *call)
{
	switch (call->number) {
#ifdef SYS_access
	case SYS_access:
#endif
	case SYS_faccessat:
	case SYS_prctl:
	case SYS_nanosleep:
	case SYS_clock_nanosleep:
	case SYS_restart_syscall:
		return !call->is_foreign;
	default:
		return false;
	}
}

/* Answers the question at whose begin it stands. */
static bool have_it_rehearse(const struct rehearsal *rehearsal)
{
	struct tracee_call unused;
	enum tracee_stop stop = TRACEE_RUNS;

	if (tracee_step(rehearsal->control))
		return false;
	while (stop == TRACEE_RUNS && !is_in_vain(rehearsal))
		stop = tracee_await(rehearsal->control, TURN_US, &unused);
	return stop == TRACEE_EXIT && !tracee_set_result(rehearsal->control, MIG_PRCTL_REHEARSE);
}

static enum outcome pass(struct rehearsal *rehearsal)
{
	struct tracee *control = rehearsal->control;
	struct tracee_call call = { 0 };
	enum tracee_stop at = TRACEE_EXIT, stop;
	bool was_asked = false, led = false;
	int calls = 0;

	while (!is_in_vain(rehearsal) && !tracee_step(control)) {
		const int64_t since = tracee_now_us(), ran_us = tracee_ran_us(control);

		for (;;) {
			bool waits = at == TRACEE_ENTRY && is_futex(&call, FUTEX_WAIT, FUTEX_WAIT_BITSET);
			uint64_t word = waits ? call.arguments[0] : 0;

			if (word)
				rehearsal->word = word;
			stop = tracee_await(control, waits ? WAITS_US : at == TRACEE_ENTRY ? TURN_US : COMPUTES_US, &call);
			if (stop == TRACEE_RUNS && was_asked && (waits || at != TRACEE_ENTRY) &&
			    !is_kept_waiting(control, ran_us, COMPUTES_US)) {
				led = true;
				stop = lead_others(rehearsal, word, &call);
			}
			if (stop != TRACEE_RUNS)
				break;
			bool is_elsewhere = at == TRACEE_ENTRY && !is_of_a_parked_guest(&call);
			const int64_t limit = is_elsewhere ? WAITS_ELSEWHERE_US : DOES_NOTHING_US;

			if (!was_asked && tracee_now_us() - since > limit && !is_kept_waiting(control, ran_us, limit))
				return NOT_ASKED;
			if (is_in_vain(rehearsal))
				return STUCK;
		}
		if (stop == TRACEE_GONE)
			return STUCK;
		at = stop;
		if (at == TRACEE_EXIT)
			continue;
		if (begins_or_ends(&call))
			return !tracee_take_back(control) && !was_asked ? NOT_ASKED : STRAYED;
		if (is_told(&call, MIG_PRCTL_DONE))
			return led ? LED : PROVED;
		if (!was_asked && is_told(&call, MIG_PRCTL_ASK)) {
			if (!have_it_rehearse(rehearsal))
				return STUCK;
			at = TRACEE_EXIT;
			was_asked = true;
		} else if (!was_asked && ++calls > CALLS_WITHOUT_ASKING) {
			return NOT_ASKED;
		}
	}
	return STUCK;
}

static void refuse(const struct rehearsal *rehearsal, int64_t microseconds)
{
	char holder[HOLDER_TEXT], comm[COMM_NAME], brink[128] = "";

	lock_holder(rehearsal->tracees, rehearsal->control, rehearsal->word, holder);
	thread_name(rehearsal->control->pid, rehearsal->control->pid, comm);
	if (rehearsal->at_brink)
		snprintf(brink, sizeof(brink), " (thread %d is about to begin or to end a thread or a process)", rehearsal->at_brink);
	pr_err("process %d (%s): %s holds a lock that the guest library would need in a restore, and has not let go of it in "
	       "%lld ms%s: checkpoint again when it has, or set late_commit = false under [criu] in config.toml",
	       rehearsal->control->pid, comm, holder, (long long)microseconds / 1000, brink);
}

static enum outcome rehearse_process(struct tracees *tracees, struct tracee *control, int64_t deadline)
{
	const int64_t begin = tracee_now_us();
	struct rehearsal rehearsal = { .tracees = tracees, .control = control, .deadline = deadline, .lead_us = LEAD_US };
	enum outcome outcome = LED;
	int passes = 0;

	while (outcome == LED && passes++ < PASSES) {
		outcome = pass(&rehearsal);
		if (tracee_stop(control) || rehearsal.is_lost)
			outcome = STUCK; /* also if it is done: CRIU would not find what it has listed */
	}
	if (outcome == PROVED)
		pr_info("process %d: its guest has all that a restore needs (%d tries, %lld ms)", control->pid, passes,
			(long long)(tracee_now_us() - begin) / 1000);
	else if (outcome == NOT_ASKED)
		pr_info("process %d: its guest is not parked, or older: a restore commits after it goes on", control->pid);
	else if (outcome == LED)
		pr_err("process %d: its other threads have taken anew what its guest would need in a restore after each of %d "
		       "tries: checkpoint again, or set late_commit = false under [criu] in config.toml",
		       control->pid, passes);
	else if (outcome == STRAYED)
		pr_err("process %d: its guest library's thread would begin or end a thread or a process, and would so in a restore: "
		       "set late_commit = false under [criu] in config.toml",
		       control->pid);
	else
		refuse(&rehearsal, tracee_now_us() - begin);
	return outcome;
}

int rehearse(struct proved *proved)
{
	struct tracees tracees;
	const char *wanted = getenv(REHEARSAL_WANTED);
	int64_t patience_us = wanted ? (int64_t)strtol(wanted, NULL, 10) * 1000000 : 0;
	const int64_t deadline = tracee_now_us() + patience_us;

	if (patience_us <= 0)
		return 0;
	int ret = tracees_collect(&tracees);
	for (size_t i = 0; !ret && i < tracees.all.count; i++) {
		struct tracee *control = &tracees.all.items[i];
		enum outcome outcome = control->is_control ? rehearse_process(&tracees, control, deadline) : NOT_ASKED;

		struct image_proved process = { control->pid, control->vpid };

		if (outcome == PROVED)
			ret = array_append(&proved->processes, process);
		else if (outcome != NOT_ASKED)
			ret = -1;
	}
	tracees_free(&tracees);
	return ret;
}
