/*
 * Asking the agent where a queue pair is that an application names: it may have moved before this process had anything to do
 * with it. Threads of the application ask, on the control thread's connection, and that thread takes the answers.
 */
#ifndef MIGRRDMA_SHADOW_WHERE_H
#define MIGRRDMA_SHADOW_WHERE_H

#include <infiniband/verbs.h>

#include "base/lock.h"
#include "wire/control.h"

struct mig_keymap;

struct mig_found {
	int error; /* 0; EAGAIN; or why it cannot be connected to, as `text` has it */
	uint32_t qpn;
	union ibv_gid gid;
	uint64_t peer;
	struct mig_keymap *rkeys; /* NULL: identity; the asker's */
	char text[MIG_TEXT];
};

/* Whether there is an agent that answers, or was a moment ago: with any other a connection costs nothing more. */
int mig_where_is_answered(void);

/*
 * Waits for the answer. Without an agent, or with one that does not answer, the name stands for itself. Must hold no lock and
 * not be in a verb: the process may be moved meanwhile. Then the error is ESTALE, and who it is by now is to be asked for anew.
 */
void mig_where_ask(const struct mig_where *where, struct mig_found *found);

/* Before that thread begins: the agent's socket says that questions are answered there, and the first ones wait until it has. */
void mig_where_expect(void);

/* The control thread's: there is a connection, and the agent is still to say whether it answers. */
void mig_where_called(void);

/* Likewise: from now on `fd` is the connection to ask on; and there is none any more, for a dump until there is. */
void mig_where_open(int fd);
void mig_where_close(int for_a_dump);

/* Likewise: the agent that there is now answers no questions, and whoever waits for one goes on. It may be that of another host. */
void mig_where_nobody(void);

/* A part of an answer. 0, or EPROTO for what is none. */
int mig_where_answered(uint32_t id, const struct mig_there *there, const struct mig_key_record *keys, uint32_t count,
		       int more);

void mig_where_after_fork(void);

/* Held for moments: to be tried by who must take it in a restore (move/rehearse.h). */
extern struct mig_lock mig_where_lock;

#endif
