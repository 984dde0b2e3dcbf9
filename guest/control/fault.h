/*
 * The guest's fault points: before and after it does what the agent asks. docs/failures.md says what they are for.
 *
 * In a container they are switched on by files in the folder of the guest libraries, which is mounted there read-only: only
 * the host's root can make one. A process can do no more to itself by having one than it can do anyway. Only the control
 * thread comes here, once for each message; no verb does.
 */
#ifndef MIGRRDMA_CONTROL_FAULT_H
#define MIGRRDMA_CONTROL_FAULT_H

/* Whether what the agent asks (`kind`, as QUIESCE) is to fail here; the process may also end here, or wait. */
int mig_fault_strikes(const char *kind, const char *moment);

#endif
