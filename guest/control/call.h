/* Where an agent is called, and how it calls a process that was dumped: by a file beside its socket. */
#ifndef MIGRRDMA_CALL_H
#define MIGRRDMA_CALL_H

/* The path of the agent's socket, whether it is there or not. */
const char *mig_call_socket(void);

/* Whether an agent, on whichever host, wants this process to call it: there is resume-TOKEN beside the socket. */
int mig_call_has_come(void);

/*
 * Whether the process would see an agent's call: whoever has left its root (chroot), or taken the mount away, is dumped
 * and never hears that it is to go on.
 */
int mig_call_can_come(void);

#endif
