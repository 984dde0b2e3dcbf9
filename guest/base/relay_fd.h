/* Descriptors that stay the application's while the real ones behind them change. */
#ifndef MIGRRDMA_EVENTFD_H
#define MIGRRDMA_EVENTFD_H

#include "shadow/mig.h"

/* Takes no ownership of inner, but makes it non-blocking; 0 or an errno. */
int mig_eventfd_open(struct mig_eventfd *event, int inner);
void mig_eventfd_close(struct mig_eventfd *event);

/* Puts another real descriptor in the place of the one before; the sets that hold the outer one do not notice. */
int mig_eventfd_exchange(struct mig_eventfd *event, int inner);

/* Makes the descriptor readable once more, and takes that back. */
void mig_eventfd_owe(struct mig_eventfd *event);
void mig_eventfd_paid(struct mig_eventfd *event);

/* Waits as a read would: EAGAIN if the application made it non-blocking, EINTR as for a read. 0: look again. */
int mig_eventfd_wait(struct mig_eventfd *event);

#endif
