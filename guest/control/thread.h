/* The control thread: one per process that has opened a device. */
#ifndef MIGRRDMA_THREAD_H
#define MIGRRDMA_THREAD_H

/* Starts it if this process has none. Never an error to the application: without it, no migration. */
void mig_thread_start(void);
void mig_thread_after_fork(void);

#endif
