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
	int stop_signal;  /* kept from it while it ran alone; 0: none */
};

struct tracees {
	ARRAY(struct tracee) all;
};

/* Every thread of every process that this one traces. 0, or -1 with the reason in the log. */
int tracees_collect(struct tracees *tracees);

void tracees_free(struct tracees *tracees);

/* Have the kernel kill them all if this process ends, or not any more. */
void tracees_end_with_us(const struct tracees *tracees, bool yes);

/* Lets a stopped thread go on. 0, or -1 with the reason in the log. */
int tracee_run(struct tracee *tracee);

/* A system call that a thread has stopped at. */
struct tracee_call {
	uint64_t number;
	uint64_t arguments[6];
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

/* What the system call at whose end it stands returns. 0, or -1 with the reason in the log. */
int tracee_set_result(const struct tracee *tracee, long result);

int64_t tracee_now_us(void);

/* Looks whether one that runs has stopped by itself, and sends it on. */
void tracee_look_after(struct tracee *tracee);

/* Stops one that runs or stands at a system call, as CRIU had it; it makes no step after this. 0, or -1: it has ended. */
int tracee_stop(struct tracee *tracee);

/* Kills all processes and reaps all threads, so that nobody waits for them. 0, or -1: some were not gone in time. */
int tracees_kill(struct tracees *tracees);

#endif
