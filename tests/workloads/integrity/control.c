#define _GNU_SOURCE
#include "control.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Waits until the descriptor is readable; 0 when the time is over. */
static int wait_readable(int fd, unsigned seconds)
{
	struct pollfd wanted = { .fd = fd, .events = POLLIN };
	struct ticker ticker;
	int ready;

	ticker_start(&ticker);
	do {
		ready = poll(&wanted, 1, TICKER_LOOK_MS);
	} while ((ready == 0 || (ready < 0 && errno == EINTR)) && ticker_look(&ticker) < seconds);
	return ready > 0;
}

static int serve_one(const struct options *options, struct verdict *verdict)
{
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
	struct addrinfo *address;
	int listener, fd = -1, one = 1, error = getaddrinfo(NULL, options->tcp_port, &hints, &address);

	if (error) {
		fail(verdict, "TCP port %s: %s", options->tcp_port, gai_strerror(error));
		return -1;
	}
	listener = socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC, 0);
	if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(listener, address->ai_addr, address->ai_addrlen) || listen(listener, 1))
		fail(verdict, "listening on TCP port %s: %s", options->tcp_port, strerror(errno));
	else if (!wait_readable(listener, options->watchdog))
		fail(verdict, "no client came in %u s", options->watchdog);
	else if ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
		fail(verdict, "accepting the client: %s", strerror(errno));
	if (listener >= 0)
		close(listener);
	freeaddrinfo(address);
	return fd;
}

/* The server may not be there yet: tries again for a while. */
static int reach(const struct options *options, struct verdict *verdict)
{
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM };
	struct addrinfo *address;
	struct ticker ticker;
	int fd, error = getaddrinfo(options->host, options->tcp_port, &hints, &address);

	if (error) {
		fail(verdict, "%s: %s", options->host, gai_strerror(error));
		return -1;
	}
	ticker_start(&ticker);
	for (;;) {
		fd = socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC, 0);
		if (fd >= 0 && !connect(fd, address->ai_addr, address->ai_addrlen))
			break;
		error = errno;
		if (fd >= 0)
			close(fd);
		fd = -1;
		if ((error != ECONNREFUSED && error != ETIMEDOUT && error != EHOSTUNREACH) || ticker_look(&ticker) > options->watchdog) {
			fail(verdict, "connecting to %s port %s: %s", options->host, options->tcp_port,
			     strerror(error));
			break;
		}
		poll(NULL, 0, 100);
	}
	freeaddrinfo(address);
	return fd;
}

void control_open(struct control *control, const struct options *options, struct verdict *verdict)
{
	int one = 1;

	*control = (struct control){ .verdict = verdict };
	control->fd = options->host ? reach(options, verdict) : serve_one(options, verdict);
	if (control->fd >= 0)
		setsockopt(control->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

void control_close(struct control *control)
{
	if (control->fd >= 0)
		close(control->fd);
	control->fd = -1;
}

void control_say(struct control *control, const char *format, ...)
{
	char line[CONTROL_LINE];
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(line, sizeof(line) - 1, format, arguments);
	va_end(arguments);
	if (length > (int)sizeof(line) - 2)
		length = (int)sizeof(line) - 2;
	line[length++] = '\n';
	for (int sent = 0, part; sent < length; sent += part) {
		part = (int)send(control->fd, line + sent, (size_t)(length - sent), MSG_NOSIGNAL);
		if (part < 0 && errno == EINTR) {
			part = 0;
		} else if (part < 0 && (errno == EPIPE || errno == ECONNRESET)) {
			/* Why it went is in what it said last, which is yet to be read. */
			return;
		} else if (part < 0) {
			fail(control->verdict, "telling the other end: %s", strerror(errno));
			return;
		}
	}
}

static bool cut_line(struct control *control, char line[CONTROL_LINE])
{
	char *end = memchr(control->unread, '\n', control->length);
	unsigned length;

	if (!end)
		return false;
	length = (unsigned)(end - control->unread);
	snprintf(line, CONTROL_LINE, "%.*s", (int)length, control->unread);
	control->length -= length + 1;
	memmove(control->unread, end + 1, control->length);
	return true;
}

/* Reads what is there; false when that was nothing. */
static bool read_some(struct control *control)
{
	ssize_t count = recv(control->fd, control->unread + control->length,
			     sizeof(control->unread) - control->length, MSG_DONTWAIT);

	if (count > 0) {
		control->length += (unsigned)count;
		return true;
	}
	if (count == 0)
		fail(control->verdict, "the other end closed the TCP connection");
	else if (errno != EAGAIN && errno != EINTR)
		fail(control->verdict, "the TCP connection to the other end: %s", strerror(errno));
	return false;
}

bool control_take(struct control *control, char line[CONTROL_LINE])
{
	return cut_line(control, line) || (read_some(control) && cut_line(control, line));
}

bool control_take_verdict(struct control *control, const char *line)
{
	if (strncmp(line, "verdict ", 8))
		return false;
	fail(control->verdict, "the other end: %s", line + 8);
	control->verdict->from_peer = true;
	return true;
}

bool control_await(struct control *control, unsigned seconds, char line[CONTROL_LINE])
{
	while (!control_take(control, line)) {
		if (control->verdict->failed)
			return false;
		if (!wait_readable(control->fd, seconds)) {
			fail(control->verdict, "the other end said nothing for %u s", seconds);
			return false;
		}
	}
	return !control_take_verdict(control, line);
}
