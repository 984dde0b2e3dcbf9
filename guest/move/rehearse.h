/* Taking and letting go of everything that a rebuild takes, once, so that it is known that nobody holds it. */
#ifndef MIGRRDMA_MOVE_REHEARSE_H
#define MIGRRDMA_MOVE_REHEARSE_H

/*
 * The control thread's, of a parked process whose other threads are stopped: it waits for ever for a lock that one of them
 * holds, and returns once it has had them all. What a device refuses does not matter.
 */
void mig_rehearse(void);

#endif
