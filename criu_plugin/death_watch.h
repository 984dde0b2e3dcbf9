/*
 * Having the runtime watch over CRIU (migrrdma_runtime/shim/death_watch.py): if CRIU is killed, the runtime takes back what it has
 * done to the container's sockets before any process of it goes on, and ends what was restored in vain.
 */
#ifndef MIGRRDMA_PLUGIN_DEATH_WATCH_H
#define MIGRRDMA_PLUGIN_DEATH_WATCH_H

/* In CRIU's environment, set by the runtime: "PID FD FD", where its two pipes are. A CRIU that is called by hand has no such thing. */
#define DEATH_WATCH "MIGRRDMA_DEATH_WATCH"

/* Returns when CRIU is watched, or nobody watches it. */
void death_watch_ask(void);

/* What was restored goes on whatever becomes of CRIU: the runtime must not cut it off. */
void death_watch_let_go(void);

#endif
