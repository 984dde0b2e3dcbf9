/*
 * The control socket: SOCK_SEQPACKET, a command a message, answered by one message whose last line is "ok" or "error: REASON".
 *
 *	host HOST DEVICE SOCKET NODE MAJOR:MINOR	a host, its device (rxe0), its socket, and the device node that opens it
 *	hosts						HOST DEVICE SOCKET and how many processes have it open
 *	set HOST NAME VALUE				a limit, the wire, a fault: see settings
 *	get HOST NAME
 *	settings					NAME and its meaning
 *	numbers HOST QPN KEY				where the device's numbers go on; 0: as it is
 *	gid HOST INDEX ADDRESS|none [IFINDEX]		an entry of the GID table: an IPv4 or IPv6 address
 *	follow HOST NAMESPACE NETWORK/BITS		its GID table follows the addresses of that network in a network namespace
 *							(/proc/PID/ns/net) and those that interfaces have moved to from it
 *	follow HOST none				no more, before the namespace is to end
 *	show HOST FOLDER				where the device is laid out for the host's sysfs: its GIDs are kept there
 *	resources HOST SOCKET				where the host's root learns whose the queue pairs are: see resources.c
 *	port HOST up|down
 *	part HOST HOST on|off				the network between two devices
 *	raise HOST EVENT NUMBER				an asynchronous event (enum ibv_event_type) about a QPN, SRQN, or the port
 *	fault HOST VERB NTH ERRNO DELAY|never		the nth next call (0: every) fails and takes DELAY ns; 0 0: as before
 *	count HOST WHAT					see rnic_count
 *	stop
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon.h"

#define MOST_WORDS 8

struct command {
	int count;
	char *words[MOST_WORDS];
	char *answer;
	size_t used;
};

static void say(struct command *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct command *command, const char *format, ...)
{
	va_list arguments;
	size_t room = CONTROL_ANSWER - 256 - command->used; /* the last line has a place */

	va_start(arguments, format);
	int length = vsnprintf(command->answer + command->used, room, format, arguments);
	va_end(arguments);
	if (length > 0)
		command->used += (size_t)length < room ? (size_t)length : room - 1;
}

static int number(const char *word, uint64_t *value)
{
	char *end;

	errno = 0;
	*value = strtoull(word, &end, 0);
	return errno ? errno : *end || end == word ? EINVAL : 0;
}

static struct host *host_named(struct command *command, int word)
{
	return word < command->count ? host_find(command->words[word]) : NULL;
}

static int do_host(struct command *command)
{
	unsigned int major_number, minor_number;
	char **words = command->words;

	if (sscanf(words[5], "%u:%u", &major_number, &minor_number) != 2)
		return EINVAL;
	return host_add(words[1], words[2], words[3], words[4], makedev(major_number, minor_number));
}

static int do_hosts(struct command *command)
{
	for (struct host *host = hosts; host; host = host->next) {
		int open = 0;

		for (struct client *client = clients; client; client = client->next)
			open += client->host == host;
		say(command, "%s %s %s %d\n", host->name, host->listed.name, host->path, open);
	}
	return 0;
}

static int do_set(struct command *command)
{
	uint64_t value;
	int error = number(command->words[3], &value);

	return error ? error : rnic_set(host_named(command, 1)->device, command->words[2], value);
}

static int do_get(struct command *command)
{
	uint64_t value;
	int error = rnic_get(host_named(command, 1)->device, command->words[2], &value);

	if (!error)
		say(command, "%llu\n", (unsigned long long)value);
	return error;
}

static int do_settings(struct command *command)
{
	const char *name, *meaning;

	for (int i = 0; (name = rnic_setting_name(i, &meaning)); i++)
		say(command, "%s %s\n", name, meaning);
	return 0;
}

static int do_numbers(struct command *command)
{
	uint64_t qpn, key;
	int error = number(command->words[2], &qpn);

	if (!error)
		error = number(command->words[3], &key);
	if (!error && (qpn > 0xffffff || key > UINT32_MAX))
		error = ERANGE;
	if (!error)
		rnic_numbers(host_named(command, 1)->device, (uint32_t)qpn, (uint32_t)key);
	return error;
}

static int do_gid(struct command *command)
{
	uint8_t gid[16] = { 0 };
	uint64_t index, ifindex = 0;
	const char *address = command->words[3];
	int error = number(command->words[2], &index);

	if (!error && command->count > 4)
		error = number(command->words[4], &ifindex);
	if (error || index > 127)
		return error ? error : ERANGE;
	if (inet_pton(AF_INET, address, gid + 12) == 1)
		gid[10] = gid[11] = 0xff;
	else if (strcmp(address, "none") && inet_pton(AF_INET6, address, gid) != 1)
		return EINVAL;
	return host_set_gid(host_named(command, 1), (int)index, gid, (uint32_t)ifindex);
}

static int do_show(struct command *command)
{
	return host_show(host_named(command, 1), command->words[2]);
}

static int do_resources(struct command *command)
{
	return resources_listen(host_named(command, 1), command->words[2]);
}

static int do_follow(struct command *command)
{
	char *slash;
	struct in_addr network;
	uint64_t bits = 32;

	if (command->count == 3) {
		host_follow_end(host_named(command, 1));
		return strcmp(command->words[2], "none") ? EINVAL : 0;
	}
	slash = strchr(command->words[3], '/');
	int error = slash ? number(slash + 1, &bits) : 0;

	if (slash)
		*slash = '\0';
	if (error || bits < 1 || bits > 32 || inet_pton(AF_INET, command->words[3], &network) != 1)
		return EINVAL;
	return host_follow(host_named(command, 1), command->words[2], ntohl(network.s_addr), ~UINT32_C(0) << (32 - bits));
}

static int is_on(const char *word, const char *on, const char *off)
{
	return !strcmp(word, on) ? 1 : !strcmp(word, off) ? 0 : -1;
}

static int do_port(struct command *command)
{
	int up = is_on(command->words[2], "up", "down");

	if (up < 0)
		return EINVAL;
	rnic_port(host_named(command, 1)->device, up);
	return 0;
}

static int do_part(struct command *command)
{
	struct host *other = host_named(command, 2);
	int parted = is_on(command->words[3], "on", "off");

	if (!other || parted < 0)
		return EINVAL;
	rnic_part(host_named(command, 1)->device, other->device, parted);
	return 0;
}

static int do_raise(struct command *command)
{
	uint64_t event, about;
	int error = number(command->words[2], &event);

	if (!error)
		error = number(command->words[3], &about);
	return error ? error
		     : rnic_raise(host_named(command, 1)->device, (enum ibv_event_type)event, (uint32_t)about);
}

/* Verbs that do not come here unless they must. */
static bool is_data_path(const char *verb)
{
	static const char *const verbs[] = { "post_send", "post_recv", "post_srq_recv", "poll_cq", "req_notify_cq", "bind_mw" };

	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (!strcmp(verbs[i], verb))
			return true;
	return false;
}

static int do_fault(struct command *command)
{
	struct host *host = host_named(command, 1);
	uint64_t nth, fails_with, delay = RNIC_NEVER;
	int error = number(command->words[3], &nth);

	if (!error)
		error = number(command->words[4], &fails_with);
	if (!error && strcmp(command->words[5], "never"))
		error = number(command->words[5], &delay);
	if (!error)
		error = rnic_fault(host->device, command->words[2], (uint32_t)nth, (int)fails_with, delay);
	if (error || !is_data_path(command->words[2]))
		return error;
	host->faults = true;
	for (struct client *client = clients; client; client = client->next)
		if (client->host == host)
			__atomic_store_n(&client->area->faults, 1, __ATOMIC_RELEASE);
	return 0;
}

static int do_count(struct command *command)
{
	uint64_t count = rnic_count(host_named(command, 1)->device, command->words[2]);

	if (count == UINT64_MAX)
		return ENOENT;
	say(command, "%llu\n", (unsigned long long)count);
	return 0;
}

static int do_stop(struct command *command)
{
	(void)command;
	stopping = true;
	return 0;
}

static const struct {
	const char *name;
	int words, most; /* with the name */
	bool has_host;	 /* the second word is a host that exists */
	int (*run)(struct command *command);
} table[] = {
	{ "host", 6, 6, false, do_host },	 { "hosts", 1, 1, false, do_hosts },   { "set", 4, 4, true, do_set },
	{ "get", 3, 3, true, do_get },		 { "settings", 1, 1, false, do_settings }, { "numbers", 4, 4, true, do_numbers },
	{ "gid", 4, 5, true, do_gid },		 { "port", 3, 3, true, do_port },	   { "part", 4, 4, true, do_part },
	{ "raise", 4, 4, true, do_raise },	 { "fault", 6, 6, true, do_fault },	   { "count", 3, 3, true, do_count },
	{ "follow", 3, 4, true, do_follow },	 { "show", 3, 3, true, do_show },
	{ "resources", 3, 3, true, do_resources },
	{ "stop", 1, 1, false, do_stop },
};

static int run(struct command *command, const char **reason)
{
	*reason = NULL;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (!command->count || strcmp(table[i].name, command->words[0]))
			continue;
		if (command->count < table[i].words || command->count > table[i].most) {
			*reason = "wrong number of words, see lab/device/daemon/control.c";
			return EINVAL;
		}
		if (table[i].has_host && !host_named(command, 1)) {
			*reason = "no such host";
			return ENOENT;
		}
		return table[i].run(command);
	}
	*reason = "no such command";
	return ENOENT;
}

void control_command(char *line, char answer[CONTROL_ANSWER])
{
	struct command command = { .answer = answer };
	const char *reason;
	char *rest = NULL;

	for (char *word = strtok_r(line, " \t\n", &rest); word && command.count < MOST_WORDS;
	     word = strtok_r(NULL, " \t\n", &rest))
		command.words[command.count++] = word;
	int error = run(&command, &reason);
	if (error)
		snprintf(answer + command.used, CONTROL_ANSWER - command.used, "error: %s",
			 reason ? reason : strerror(error));
	else
		strcpy(answer + command.used, "ok");
}

static void commanded(struct watch *watch)
{
	char line[1024], answer[CONTROL_ANSWER];
	ssize_t got = recv(watch->fd, line, sizeof(line) - 1, MSG_DONTWAIT);

	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0) {
		watch_remove(watch);
		free(watch);
		return;
	}
	line[got] = '\0';
	control_command(line, answer);
	if (send(watch->fd, answer, strlen(answer), MSG_NOSIGNAL) < 0)
		complain("a command's answer: %s", strerror(errno));
}

static void connected(struct watch *watch)
{
	struct watch *connection = calloc(1, sizeof(*connection));
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0 && connection) {
		*connection = (struct watch){ commanded, fd };
		if (!watch_add(connection))
			return;
	}
	if (fd >= 0)
		close(fd);
	free(connection);
}

int control_listen(const char *path)
{
	static struct watch control = { connected, -1 };
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(address.sun_path))
		return ENAMETOOLONG;
	strcpy(address.sun_path, path);
	unlink(path);
	control.fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (control.fd < 0 || bind(control.fd, (struct sockaddr *)&address, sizeof(address)) || chmod(path, 0600) ||
	    listen(control.fd, 8))
		return errno;
	return watch_add(&control);
}
