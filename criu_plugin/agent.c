/*
 * One line of JSON asks, any number of lines answer (migrrdma_runtime/agent/local/runtime_api.py). The agent has made them
 * itself, so it is enough to know how they begin.
 */
#include "agent.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "scope.h"

/* It says every 3 seconds that it is alive (ALIVE_S): silent for so long, it hangs, and is asked anew. */
#define SILENT_MS 20000

/* For so long an agent that is restarted, hung or gone is waited for, as by the runtime (IN_DOUBT_S). */
#define IN_DOUBT_MS 600000

/* A turn of listening takes much less, but on a busy host: what is more was a time in which nobody listened. */
#define TURN_MS 1000

/* An agent that does not know yet is given so much time. */
#define RETRY_MS 100

#define MIGRATION_LENGTH 16
#define PID_LENGTH 7

#define STANDING "standing"
#define LETTING_GO "letting_go"

static struct {
	const char *operation; /* what it is asked */
	int fd;
	bool is_connected;
	bool may_be_committed; /* it has said that it asks for the commit */
	int64_t asked;	       /* when this connection was made, or spoke last */
	int64_t turn;	       /* when it was listened to last; 0: not begun */
	int64_t silent_ms;     /* for how long it has been listened to in vain */
	char line[4096];
	size_t used;
} agent = { .operation = STANDING, .fd = -1 };

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void pause_for(int milliseconds)
{
	struct timespec time = { milliseconds / 1000, (long)(milliseconds % 1000) * 1000000 };

	nanosleep(&time, NULL);
}

static const char *migration(void)
{
	const char *id = getenv(AGENT_MIGRATION);

	return id && strlen(id) == MIGRATION_LENGTH && strspn(id, "0123456789abcdef") == MIGRATION_LENGTH ? id : NULL;
}

static const char *runtime(void)
{
	const char *pid = getenv(AGENT_RUNTIME);

	return pid && *pid && strlen(pid) <= PID_LENGTH && strspn(pid, "0123456789") == strlen(pid) ? pid : NULL;
}

bool agent_is_asked(void)
{
	const char *socket_path = getenv(AGENT_SOCKET);

	return migration() && runtime() && socket_path && *socket_path;
}

void agent_close(void)
{
	if (agent.fd >= 0)
		close(agent.fd);
	agent.fd = -1;
	agent.is_connected = false;
	agent.used = 0;
}

static bool say(const char *operation, const char *more)
{
	char request[128];
	int length = snprintf(request, sizeof(request), "{\"op\": \"%s\", \"migration\": \"%s\", \"runtime\": %s%s}\n", operation,
			      migration(), runtime(), more);

	return send(agent.fd, request, (size_t)length, MSG_NOSIGNAL) == length;
}

static bool reach(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *path = getenv(AGENT_SOCKET);

	if (strlen(path) >= sizeof(address.sun_path))
		return false;
	memcpy(address.sun_path, path, strlen(path));
	agent.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	agent.is_connected = agent.fd >= 0 && !connect(agent.fd, (struct sockaddr *)&address, sizeof(address));
	if (!agent.is_connected)
		agent_close();
	return agent.is_connected;
}

static bool ask(void)
{
	if ((!agent.is_connected && !reach()) || !say(agent.operation, "")) {
		agent_close();
		return false;
	}
	agent.asked = now_ms();
	return true;
}

static bool begins(const char *line, const char *with)
{
	return !strncmp(line, with, strlen(with));
}

static enum agent_says take_line(const char *line)
{
	if (begins(line, "{\"done\""))
		return AGENT_GO;
	if (begins(line, "{\"step\": \"committing\"}"))
		agent.may_be_committed = true;
	if (!begins(line, "{\"error\""))
		return AGENT_WAIT;
	/* Whether it says so for good: else what may be committed is asked about again. */
	if (agent.may_be_committed && !strstr(line, "\"released\": true")) {
		pr_warn("the agent has no decision: %s", line);
		agent_close();
		pause_for(RETRY_MS);
		return AGENT_WAIT;
	}
	pr_err("the restore was not committed, and what was restored is ended before its first step: %s", line);
	return AGENT_REFUSE;
}

/* A line that is longer is one that gives a reason; its end is dropped. */
static enum agent_says take(const char *bytes, size_t count)
{
	enum agent_says says = AGENT_WAIT;

	for (size_t i = 0; i < count && says == AGENT_WAIT; i++) {
		if (bytes[i] != '\n') {
			if (agent.used < sizeof(agent.line) - 1)
				agent.line[agent.used++] = bytes[i];
			continue;
		}
		agent.line[agent.used] = '\0';
		agent.used = 0;
		says = take_line(agent.line);
	}
	return says;
}

/* What becomes of it without an agent: what cannot have been committed must not run, what may have been must not die. */
static enum agent_says without_an_agent(void)
{
	if (!agent.may_be_committed) {
		pr_err("the agent of this host (%s) has not been heard for %d s; nothing was committed, and what was restored "
		       "is ended before its first step: start it (systemctl start migrrdma-agent) and restore again",
		       getenv(AGENT_SOCKET), IN_DOUBT_MS / 1000);
		return AGENT_REFUSE;
	}
	pr_warn("the agent of this host (%s) has not been heard for %d s after it asked for the commit: what was restored may "
		"be the only copy, and goes on; its connections follow when the agent is started",
		getenv(AGENT_SOCKET), IN_DOUBT_MS / 1000);
	return AGENT_GO;
}

/*
 * A process that is stopped, and a host that sleeps, hear nothing for as long, though the agent may have said in that time that
 * all was given back: only such silence counts as was listened to.
 */
static bool is_in_doubt(void)
{
	const int64_t now = now_ms(), passed = agent.turn ? now - agent.turn : 0;

	agent.turn = now;
	agent.silent_ms += passed < TURN_MS ? passed : TURN_MS;
	return agent.silent_ms > IN_DOUBT_MS;
}

enum agent_says agent_listen(int milliseconds)
{
	char bytes[4096];

	if (is_in_doubt())
		return without_an_agent();
	if (!agent.is_connected && !ask()) {
		pause_for(milliseconds); /* nothing tells when a service has been started again */
		return AGENT_WAIT;
	}
	struct pollfd waited = { .fd = agent.fd, .events = POLLIN };
	if (poll(&waited, 1, milliseconds) <= 0) {
		if (now_ms() - agent.asked > SILENT_MS)
			agent_close();
		return AGENT_WAIT;
	}
	ssize_t got = recv(agent.fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return AGENT_WAIT;
	if (got <= 0) {
		agent_close();
		return AGENT_WAIT;
	}
	agent.asked = now_ms();
	agent.silent_ms = 0;
	return take(bytes, (size_t)got);
}

void agent_ask_to_let_go(void)
{
	agent.operation = LETTING_GO;
	agent.used = 0;
	if (agent.is_connected)
		ask(); /* else it is asked with the next connection */
}

void agent_say_gone_on(bool succeeded)
{
	const char *how = succeeded ? ", \"succeeded\": true" : ", \"succeeded\": false";

	if ((!agent.is_connected && !reach()) || !say("gone_on", how))
		pr_warn("the agent of this host has ended: its successor looks whether what was restored goes on");
}
