/*
 * The agent of this host, asked whether what is restored may go on.
 *
 * The runtime says in the environment which restore it is, whose (its own number) and where the agent is; a restore by hand,
 * or by a runtime that is told to commit afterwards, has nothing of it.
 */
#ifndef MIGRRDMA_PLUGIN_AGENT_H
#define MIGRRDMA_PLUGIN_AGENT_H

#include <stdbool.h>

#define AGENT_MIGRATION "MIGRRDMA_LATE_MIGRATION"
#define AGENT_RUNTIME "MIGRRDMA_LATE_RUNTIME"
#define AGENT_SOCKET "MIGRRDMA_LATE_SOCKET"

enum agent_says {
	AGENT_WAIT,   /* nothing yet */
	AGENT_GO,     /* it is committed */
	AGENT_REFUSE, /* it is not, and never will be */
};

/* Whether there is anybody to ask. */
bool agent_is_asked(void);

/* Waits for up to `milliseconds` for a word. The reason of a refusal is in the log. */
enum agent_says agent_listen(int milliseconds);

/*
 * Asks whether what is committed and held may now be let go: it can be given back until the agent has said yes, which is the
 * next word to listen for.
 */
void agent_ask_to_let_go(void);

/* Tells it whether what was let go goes on. Of a process that ends without this the agent looks for itself. */
void agent_say_gone_on(bool succeeded);

void agent_close(void);

#endif
