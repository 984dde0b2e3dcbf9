/* The threads that CRIU has stopped: one of them run alone, and all of them ended. */
#ifndef MIGRRDMA_PLUGIN_TRACEE_H
#define MIGRRDMA_PLUGIN_TRACEE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "array.h"

struct tracee {
	pid_t pid;	  /* of the process */
	pid_t vpid;	  /* of the process in its own namespace */
	pid_t tid;	  /* on the host, as pid */
	bool is_control;  /* the guest library's thread */
	bool runs;	  /* let go by tracee_run or tracee_step */
	bool in_call;	  /* stopped at the begin or the end of a system call */
	bool is_gone;	  /* ended, and reaped */
	bool has_begun;	  /* another thread or process, while it was let go */
	int stop_signal;  /* kept from it while it ran alone; 0: none */
};

struct tracees {
	ARRAY(struct tracee) all;
};

/* Every thread of every process that this one traces. 0, or -1 with the reason in the log. */
int tracees_collect(struct tracees *tracees);

void tracees_free(struct tracees *tracees);

/*
 * Have the kernel kill them all if this process ends, and stop whoever begins another thread or process; or not any more.
 */
void tracees_end_with_us(const struct tracees *tracees, bool yes);

/*
 * Looks at all of them, and sends on what has stopped by itself. Whether they are the threads that were collected: none has
 * ended, though it was to stand, and none has begun another one. What it has begun is among them from then on.
 */
bool tracees_are_whole(struct tracees *tracees);

/*
 * From now on the end of each is taken notice of as soon as it comes, until `false`. CRIU waits for the end of a process's first
 * thread, which the kernel reports only when its tracer has noticed those of all others; and CRIU asks for that one alone.
 */
void tracees_notice_ends(const struct tracees *tracees, bool yes);

/* Lets a stopped thread go on. 0, or -1 with the reason in the log. */
int tracee_run(struct tracee *tracee);

/* A system call that a thread has stopped at. */
struct tracee_call {
	uint64_t number;
	uint64_t arguments[6];
	bool is_foreign; /* of another ABI than this program's: its number means something else */
};

enum tracee_stop {
	TRACEE_RUNS,  /* it has not stopped */
	TRACEE_ENTRY, /* at the begin of a system call */
	TRACEE_EXIT,  /* at its end */
	TRACEE_GONE,
};

/* Lets a stopped thread go on to the next begin or end of a system call. 0, or -1 with the reason in the log. */
int tracee_step(struct tracee *tracee);

/* Waits for that; *call is filled in at a begin. */
enum tracee_stop tracee_await(struct tracee *tracee, int64_t microseconds, struct tracee_call *call);

/*
 * Takes a thread that stands at the begin of a system call back to right before it: nothing of the call is done, and the thread
 * makes it when it goes on the next time. 0, or -1 with the reason in the log.
 */
int tracee_take_back(struct tracee *tracee);

/* What the system call at whose end it stands returns. 0, or -1 with the reason in the log. */
int tracee_set_result(const struct tracee *tracee, long result);

int64_t tracee_now_us(void);

/* Whether it runs, or waits for a processor. */
bool tracee_is_runnable(const struct tracee *tracee);

/* For how long it has had a processor, since it began. */
int64_t tracee_ran_us(const struct tracee *tracee);

/*
 * Stops one that runs or stands at a system call, as CRIU had it; it makes no step after this. 0, or -1: it has ended, or could
 * not be stopped, which is logged: it is in a system call that the kernel does not interrupt.
 */
int tracee_stop(struct tracee *tracee);

/* Kills all processes and reaps all threads, so that nobody waits for them. 0, or -1: some were not gone in time. */
int tracees_kill(struct tracees *tracees);

#endif
