/* The threads that CRIU has stopped: one of them run alone, and all of them ended. */
#ifndef MIGRRDMA_PLUGIN_TRACEE_H
#define MIGRRDMA_PLUGIN_TRACEE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "array.h"

struct tracee {
	pid_t pid;	  /* of the process */
	pid_t tid;	  /* on the host, as every pid here */
	bool is_control;  /* the guest library's thread */
	bool runs;	  /* let go by tracee_run */
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

/* Looks whether one that runs has stopped by itself, and sends it on. */
void tracee_look_after(struct tracee *tracee);

/* Stops one that runs; it does not make a step after this. 0, or -1: it has ended. */
int tracee_stop(struct tracee *tracee);

/* Kills all processes and reaps all threads, so that nobody waits for them. 0, or -1: some were not gone in time. */
int tracees_kill(struct tracees *tracees);

#endif
