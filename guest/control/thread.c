/*
 * Connects to the agent and does what it asks.
 *
 * While the process is dumped by CRIU no connection may be open, and the thread must not make one by itself: after
 * it was parked it looks for a file beside the socket, resume-TOKEN, which the agent makes when it wants to be
 * called (call.c), on whichever host. The clock may have jumped by then, so all it does meanwhile is to sleep a little and
 * look again.
 */
#define _GNU_SOURCE
#include "control/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/elf.h"
#include "base/log.h"
#include "control/answer.h"
#include "control/call.h"
#include "control/message.h"
#include "move/alone.h"
#include "move/decision.h"
#include "move/quiesce.h"
#include "move/rehearse.h"
#include "shadow/process.h"
#include "shadow/where.h"

static int started;

/*
 * A child of a fork has a copy of the connection: while it is open the agent does not see ours end, and CRIU refuses the
 * child. So a child closes it, and the number must never be another descriptor's: it changes under the lock, together
 * with what is behind it, and no fork is made meanwhile.
 */
static struct mig_lock session_lock;
static int session_fd = -1;

static void before_fork(void)
{
	mig_lock(&session_lock);
}

static void in_parent(void)
{
	mig_unlock(&session_lock);
}

static void in_child(void)
{
	session_lock.word = 0;
	mig_where_after_fork();
	if (session_fd >= 0)
		close(session_fd);
	session_fd = -1;
}

/* A child that was made past fork() keeps its copy until it begins another program, or with RDMA. */
static void watch_forks(void)
{
	typedef int of_glibc(void (*)(void), void (*)(void), void (*)(void), void *library);
	typedef int of_others(void (*)(void), void (*)(void), void (*)(void));
	static int watched;

	if (watched)
		return;
	watched = 1;
	of_glibc *register_atfork = (of_glibc *)(uintptr_t)mig_elf_global_symbol("__register_atfork");
	of_others *pthread_atfork = (of_others *)(uintptr_t)mig_elf_global_symbol("pthread_atfork");
	if (register_atfork)
		register_atfork(before_fork, in_parent, in_child, NULL);
	else if (pthread_atfork)
		pthread_atfork(before_fork, in_parent, in_child);
}

static void hang_up(int for_a_dump)
{
	mig_where_close(for_a_dump);
	MIG_LOCKED(&session_lock);
	close(session_fd);
	session_fd = -1;
}

/* Whether there is a connection now. */
static int dial(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *path = mig_call_socket();

	if (strlen(path) >= sizeof(address.sun_path))
		return 0;
	strcpy(address.sun_path, path);
	/* No agent is the normal case on most hosts: not even a socket is made for nothing. */
	if (access(path, F_OK))
		return 0;
	mig_lock(&session_lock);
	session_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mig_unlock(&session_lock);
	if (session_fd < 0)
		return 0;
	/* An agent that hangs does not take connections, and must not keep us in this call when its backlog is full. */
	if (connect(session_fd, (struct sockaddr *)&address, sizeof(address)) || fcntl(session_fd, F_SETFL, O_RDWR)) {
		hang_up(0);
		return 0;
	}
	return 1;
}

/* For how long an agent may leave its answers unread, as it has for ours (deadlines.guest). */
#define UNREAD_MS 10000
#define UNREAD_STEP_MS 100

static int send_message(struct mig_session *session, const void *message, size_t length)
{
	/* Counted in steps and not by a clock, as mig_alone_passed does. */
	for (int waited = 0; waited < UNREAD_MS; waited += UNREAD_STEP_MS) {
		struct pollfd unread = { .fd = session->fd, .events = POLLOUT };
		ssize_t sent = send(session->fd, message, length, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent >= 0)
			return sent == (ssize_t)length ? 0 : EIO;
		if (errno != EAGAIN && errno != EINTR)
			return errno;
		poll(&unread, 1, UNREAD_STEP_MS);
	}
	return ETIMEDOUT;
}

static void nap(int milliseconds)
{
	struct timespec time = { milliseconds / 1000, (long)(milliseconds % 1000) * 1000000 };

	nanosleep(&time, NULL);
}

/* For how long the verbs under way are waited for at a time; between, the agent is listened to. */
#define DECISION_MS 100

/* How often a quiesced guest looks whether it has been without a word from its agent for too long. */
#define SILENCE_MS 100

/* Serves one connection to its end. Returns whether it ended because the process is to be dumped. */
static int serve(int fd, int *welcome)
{
	static union {
		uint64_t aligned;
		unsigned char bytes[MIG_MESSAGE_MAX];
	} message;
	struct mig_session session = { .send = send_message, .fd = fd };
	int error = mig_answer_hello(&session), flushing = 1, quick = 0;

	while (!error && !session.closing) {
		struct pollfd waited = { .fd = fd, .events = POLLIN };
		/* A drain is waited for by looking: its completions' events belong to the application. */
		int timeout = session.quiescing ? (quick++ < 200 ? 0 : 1) : flushing ? 1 : -1, ready;
		struct mig_qp_name which;

		if (mig_decision_open() != MIG_DECISION_NONE)
			timeout = 0;
		else if (timeout < 0 && mig.state == MIG_STATE_QUIESCED)
			timeout = SILENCE_MS;
		if (!session.quiescing)
			quick = 0;
		ready = poll(&waited, 1, timeout);
		if (ready < 0 && errno != EINTR)
			error = errno;
		if (!ready && timeout == SILENCE_MS) {
			mig_alone_passed(SILENCE_MS, 1);
			flushing = 1;
		}
		if (!error && waited.revents) {
			ssize_t got = recv(fd, message.bytes, sizeof(message.bytes), MSG_DONTWAIT | MSG_TRUNC);

			if (got > 0)
				error = mig_message_handle(&session, message.bytes,
							   (size_t)got > sizeof(message.bytes) ? 0 : (size_t)got);
			else if (got == 0)
				error = ECONNRESET;
			else if (errno != EAGAIN && errno != EINTR)
				error = errno;
			flushing = 1;
		} else if (!error && session.quiescing) {
			error = mig_message_tick(&session);
		} else if (!error && mig_decision_open() != MIG_DECISION_NONE) {
			mig_decision_carry_out(DECISION_MS, &which);
			flushing = 1;
		}
		if (!error && !session.quiescing && flushing)
			flushing = mig.state == MIG_STATE_RUNNING && mig_quiesce_flush();
	}
	if (error)
		mig_log(error == EPROTO ? MIG_LOG_ERROR : MIG_LOG_INFO, "connection closed: %s", strerror(error));
	if (!session.closing)
		mig_message_lost(&session);
	*welcome = session.welcome;
	return session.closing;
}

/* Our locks, which are the least that a connection needs, and then everything else (move/rehearse.h). */
static void rehearse_if_wanted(void)
{
	if (syscall(SYS_prctl, MIG_PRCTL, MIG_PRCTL_ASK, 0, 0, 0) != MIG_PRCTL_REHEARSE)
		return;
	mig_lock(&session_lock);
	mig_unlock(&session_lock);
	mig_lock(&mig_where_lock);
	mig_unlock(&mig_where_lock);
	mig_rehearse();
	syscall(SYS_prctl, MIG_PRCTL, MIG_PRCTL_DONE, 0, 0, 0);
}

static void *run(void *unused)
{
	int wait_ms = 50, parked = 0, welcome = 0;

	(void)unused;
	prctl(PR_SET_NAME, MIG_THREAD_NAME);
	for (;;) {
		if (parked && !mig_call_has_come()) {
			rehearse_if_wanted();
			nap(10);
			continue;
		}
		int connected = dial();
		if (connected) {
			mig_where_called();
			parked = serve(session_fd, &welcome) || mig.state >= MIG_STATE_PARKED;
			hang_up(parked);
		}
		if (connected && welcome) {
			wait_ms = 50;
		} else {
			nap(parked ? 10 : wait_ms);
			mig_alone_passed((uint32_t)wait_ms, 0);
			wait_ms = wait_ms < 1000 ? wait_ms * 2 : 1000;
			/* Sends that an ended quiesce left behind do not wait for an agent. */
			while (mig.state == MIG_STATE_RUNNING && mig_quiesce_flush())
				nap(1);
		}
	}
	return NULL;
}

/* Names the process for as long as it lives, through every move. */
static uint64_t random_token(void)
{
	uint64_t token = 0;
	int fd = -1;

#ifdef SYS_getrandom
	if (syscall(SYS_getrandom, &token, sizeof(token), 0) == sizeof(token) && token)
		return token;
#endif
	fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		ssize_t got = read(fd, &token, sizeof(token));

		(void)got;
		close(fd);
	}
	return token ? token : (uint64_t)getpid() << 32 | (uint64_t)time(NULL);
}

void mig_thread_start(void)
{
	typedef int create(unsigned long *thread, const void *attributes, void *(*function)(void *), void *argument);
	typedef int detach(unsigned long thread);
	sigset_t all, before;
	unsigned long thread;

	MIG_LOCKED(&mig.lock);
	if (started)
		return;
	create *pthread_create = (create *)(uintptr_t)mig_elf_global_symbol("pthread_create");
	detach *pthread_detach = (detach *)(uintptr_t)mig_elf_global_symbol("pthread_detach");
	if (!pthread_create || !pthread_detach) {
		mig_log(MIG_LOG_ERROR, "the process has no threads library: it cannot be migrated");
		return;
	}
	mig.token = random_token();
	watch_forks();
	/* As the agent has made it (local/guest_sockets.py). Who is quick connects to others before the agent has said anything. */
	int saved = errno;
	if (!access(mig_call_socket(), X_OK))
		mig_where_expect();
	errno = saved;
	/* The application's signals are none of its business: it starts with all of them blocked. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	int error = pthread_create(&thread, NULL, run, NULL);
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (error) {
		mig_log(MIG_LOG_ERROR, "no control thread: %s", strerror(error));
		return;
	}
	pthread_detach(thread);
	started = 1;
}

void mig_thread_after_fork(void)
{
	started = 0;
	mig_decision_after_fork();
	in_child(); /* it may have been made past fork() */
}
