/* Descriptors that stay the application's while the real ones behind them change. */
#ifndef MIGRRDMA_RELAY_FD_H
#define MIGRRDMA_RELAY_FD_H

#include "shadow/mig.h"

/* Takes no ownership of inner, but makes it non-blocking; 0 or an errno. */
int mig_relay_fd_open(struct mig_relay_fd *event, int inner);
void mig_relay_fd_close(struct mig_relay_fd *event);

/* Puts another real descriptor in the place of the one before; the sets that hold the outer one do not notice. */
int mig_relay_fd_exchange(struct mig_relay_fd *event, int inner);

/* Makes the descriptor readable once more, and takes that back. */
void mig_relay_fd_owe(struct mig_relay_fd *event);
void mig_relay_fd_paid(struct mig_relay_fd *event);

/* Waits as a read would: EAGAIN if the application made it non-blocking, EINTR as for a read. 0: look again. */
int mig_relay_fd_wait(struct mig_relay_fd *event);

#endif
