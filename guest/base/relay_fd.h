/* Descriptors that stay the application's while the real ones behind them change. */
#ifndef MIGRRDMA_RELAY_FD_H
#define MIGRRDMA_RELAY_FD_H

/*
 * A descriptor that the application may put into its own epoll sets and that outlives the real one: an epoll
 * descriptor holding the real one, and an eventfd that counts events which we owe the application.
 */
struct mig_relay_fd {
	int outer;
	int owed;
	int inner; /* the real one, non-blocking */
};

/* Takes no ownership of inner, but makes it non-blocking; 0 or an errno. */
int mig_relay_fd_open(struct mig_relay_fd *relay, int inner);
void mig_relay_fd_close(struct mig_relay_fd *relay);

/* Puts another real descriptor in the place of the one before; the sets that hold the outer one do not notice. */
int mig_relay_fd_exchange(struct mig_relay_fd *relay, int inner);

/* Makes the descriptor readable once more, and takes that back. */
void mig_relay_fd_owe(struct mig_relay_fd *relay);
void mig_relay_fd_paid(struct mig_relay_fd *relay);

/* Waits as a read would: EAGAIN if the application made it non-blocking, EINTR as for a read. 0: look again. */
int mig_relay_fd_wait(struct mig_relay_fd *relay);

#endif
