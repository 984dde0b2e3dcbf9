/*
 * deviced: RDMA devices of several hosts, in software.
 *
 *	deviced CONTROL-SOCKET [FILE]
 *
 * FILE holds commands of the control socket (control.c), one a line, which are done first. It says "ready" on stdout when it
 * listens, and ends on SIGTERM, SIGINT or "stop". Its sockets are removed then.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "daemon.h"

void complain(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("deviced: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
}

static void signalled(struct watch *watch)
{
	struct signalfd_siginfo signal;
	ssize_t got = read(watch->fd, &signal, sizeof(signal));

	(void)got;
	stopping = true;
}

static int watch_signals(void)
{
	static struct watch signals = { signalled, -1 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return errno;
	signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return signals.fd < 0 ? errno : watch_add(&signals);
}

/* A process has two descriptors here for each completion channel, and three for each opening. */
static void raise_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static int configure(const char *path)
{
	char line[1024], answer[CONTROL_ANSWER];
	FILE *file = fopen(path, "re");

	if (!file) {
		complain("%s: %s", path, strerror(errno));
		return -1;
	}
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (!*line || *line == '#')
			continue;
		control_command(line, answer);
		if (!strncmp(answer, "error", 5)) {
			complain("%s: %s: %s", path, line, answer);
			fclose(file);
			return -1;
		}
	}
	fclose(file);
	return 0;
}

int main(int argc, char **argv)
{
	int error;

	if (argc < 2 || argc > 3) {
		fprintf(stderr, "usage: %s CONTROL-SOCKET [FILE]\n", argv[0]);
		return 2;
	}
	raise_limits();
	/* Timers of the engine are microseconds; the kernel's slack is 50 of them. */
	prctl(PR_SET_TIMERSLACK, 1000);
	if (!(fabric = rnic_fabric_new(clock_now, NULL))) {
		complain("out of memory");
		return 1;
	}
	if ((error = watch_signals()) || (error = control_listen(argv[1]))) {
		complain("%s: %s", argv[1], strerror(error));
		return 1;
	}
	if (argc == 3 && configure(argv[2]))
		return 1;
	puts("ready");
	fflush(stdout);
	loop_run();
	host_remove_all();
	unlink(argv[1]);
	rnic_fabric_free(fabric);
	return 0;
}
