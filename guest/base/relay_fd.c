/*
 * The application gets an epoll descriptor that holds the real one from the beginning. So the real one can be
 * exchanged by two epoll_ctl calls: registrations in the application's own epoll sets, threads blocked on it, and
 * its number all stay. The alternative, to put the new descriptor on the old number, loses the registrations
 * (they belong to the open file) and leaves threads asleep inside a read of the old one.
 */
#define _GNU_SOURCE
#include "base/relay_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

static int add(int outer, int inner)
{
	struct epoll_event event = { .events = EPOLLIN };

	return epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event) ? errno : 0;
}

static int make_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ? errno : 0;
}

int mig_relay_fd_open(struct mig_relay_fd *relay, int inner)
{
	int error = make_nonblocking(inner);

	*relay = (struct mig_relay_fd){ .outer = -1, .owed = -1, .inner = inner };
	if (error)
		return error;
	relay->outer = epoll_create1(EPOLL_CLOEXEC);
	relay->owed = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
	if (relay->outer < 0 || relay->owed < 0)
		error = errno;
	if (!error)
		error = add(relay->outer, inner);
	if (!error)
		error = add(relay->outer, relay->owed);
	if (error)
		mig_relay_fd_close(relay);
	return error;
}

void mig_relay_fd_close(struct mig_relay_fd *relay)
{
	int saved = errno;

	if (relay->outer >= 0)
		close(relay->outer);
	if (relay->owed >= 0)
		close(relay->owed);
	relay->outer = relay->owed = -1;
	errno = saved;
}

int mig_relay_fd_exchange(struct mig_relay_fd *relay, int inner)
{
	int error = make_nonblocking(inner);

	if (!error)
		error = add(relay->outer, inner);
	/* EEXIST: what another step has stopped is done once more. */
	if (error && error != EEXIST)
		return error;
	/* It may be gone: a restored process can have nothing behind the old number, or already the new one. */
	if (inner != relay->inner)
		epoll_ctl(relay->outer, EPOLL_CTL_DEL, relay->inner, NULL);
	relay->inner = inner;
	return 0;
}

/* Locks are held around these two, so they must be no cancellation points: read() and write() are. */

void mig_relay_fd_owe(struct mig_relay_fd *relay)
{
	uint64_t one = 1;
	int saved = errno;
	long written = syscall(SYS_write, relay->owed, &one, sizeof(one));

	(void)written;
	errno = saved;
}

void mig_relay_fd_paid(struct mig_relay_fd *relay)
{
	uint64_t one;
	int saved = errno;
	long got = syscall(SYS_read, relay->owed, &one, sizeof(one));

	(void)got;
	errno = saved;
}

/* A read goes on after a handler with SA_RESTART, poll never does; which handler ran cannot be known. */
static int some_handler_interrupts(void)
{
	for (int signal = 1; signal < NSIG; signal++) {
		struct sigaction action;

		if (!sigaction(signal, NULL, &action) && action.sa_handler != SIG_DFL &&
		    action.sa_handler != SIG_IGN && !(action.sa_flags & SA_RESTART))
			return 1;
	}
	return 0;
}

int mig_relay_fd_wait(struct mig_relay_fd *relay)
{
	struct pollfd waited = { .fd = relay->outer, .events = POLLIN };
	int flags = fcntl(relay->outer, F_GETFL);

	if (flags >= 0 && flags & O_NONBLOCK)
		return EAGAIN;
	if (poll(&waited, 1, -1) >= 0)
		return waited.revents & POLLNVAL ? EBADF : 0;
	return errno == EINTR && !some_handler_interrupts() ? 0 : errno;
}
