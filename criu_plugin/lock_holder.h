/*
 * Who holds a lock, for the message of a dump that is refused for it.
 *
 * A futex is a word in memory; who holds it, the kernel does not know. glibc's mutexes have their owner's number two words on.
 * Of any other lock it can be said who does not hold it: those that wait for it as well.
 */
#ifndef MIGRRDMA_PLUGIN_LOCK_HOLDER_H
#define MIGRRDMA_PLUGIN_LOCK_HOLDER_H

#include <stdint.h>
#include <sys/types.h>

#include "process.h"
#include "tracee.h"

#define HOLDER_TEXT 256

/* "thread 4711 (worker)", or who it may be, into a buffer of HOLDER_TEXT bytes. `word`: what `waiter` waits for; 0: nothing. */
void lock_holder(const struct tracees *tracees, const struct tracee *waiter, uint64_t word, char *text);

/* Into a buffer of COMM_NAME bytes; "?" if the thread has ended. */
void thread_name(pid_t pid, pid_t tid, char *comm);

#endif
