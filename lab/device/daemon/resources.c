/*
 * Whose the queue pairs of a host are, in the words of `rdma -j resource show qp` (iproute2), which asks a kernel's driver.
 *
 * For the host's root alone: the socket is in a folder that no container sees. To connect to it is to ask. PATH.json is then
 * replaced, and the connection closed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon.h"

struct resources {
	struct watch watch; /* first */
	struct host *host;
	char path[108];
};

/* The process as its host calls it: a node of a rack numbers its processes itself, in a namespace inside the daemon's. */
static pid_t pid_on_host(pid_t pid)
{
	char path[32], line[256];
	int own, inside, found = pid;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	FILE *file = fopen(path, "re");
	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "NSpid: %d %d", &own, &inside) == 2)
			found = inside;
	fclose(file);
	return found;
}

/* Only letters that need no escape in JSON. */
static void command_of(pid_t pid, char name[16])
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	FILE *file = fopen(path, "re");
	if (!file || !fgets(name, 16, file))
		strcpy(name, "?");
	if (file)
		fclose(file);
	name[strcspn(name, "\n")] = '\0';
	for (char *at = name; *at; at++)
		if ((unsigned char)*at < ' ' || (unsigned char)*at > '~' || *at == '"' || *at == '\\')
			*at = '?';
}

static const char *type_name(enum ibv_qp_type type)
{
	return type == IBV_QPT_RC ? "RC" : type == IBV_QPT_UC ? "UC" : type == IBV_QPT_UD ? "UD" : "OTHER";
}

static const char *state_name(enum ibv_qp_state state)
{
	static const char *const names[] = { "RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR" };

	return (size_t)state < sizeof(names) / sizeof(names[0]) ? names[state] : "UNKNOWN";
}

static void write_client(FILE *file, const struct client *client, const char **comma)
{
	struct rnic_qp_shown shown;
	uint32_t at = 0;
	pid_t pid = pid_on_host(client->pid);
	char command[16];

	command_of(client->pid, command);
	while (rnic_next_qp(client->served.context, &at, &shown)) {
		fprintf(file, "%s{\"ifindex\":%u,\"ifname\":\"%s\",\"port\":1,\"lqpn\":%u,", *comma,
			client->host->listed.index, client->host->listed.name, shown.qpn);
		if (shown.connected)
			fprintf(file, "\"rqpn\":%u,", shown.peer_qpn);
		fprintf(file, "\"type\":\"%s\",\"state\":\"%s\",\"pid\":%d,\"comm\":\"%s\"}", type_name(shown.type),
			state_name(shown.state), pid, command);
		*comma = ",";
	}
}

static int write_list(const struct host *host, const char *path)
{
	char fresh[128], final[128];
	const char *comma = "";

	snprintf(final, sizeof(final), "%s.json", path);
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	FILE *file = fopen(fresh, "we");
	if (!file)
		return errno;
	fchmod(fileno(file), 0600);
	fputc('[', file);
	for (const struct client *client = clients; client; client = client->next)
		if (client->host == host && !client->gone)
			write_client(file, client, &comma);
	int error = fputs("]\n", file) < 0 ? EIO : 0;
	if (fclose(file) && !error)
		error = EIO;
	return error ? error : rename(fresh, final) ? errno : 0;
}

static void asked(struct watch *watch)
{
	struct resources *resources = (struct resources *)watch;
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	/* Whose program has been replaced has none of them. */
	clients_sweep(true);
	int error = write_list(resources->host, resources->path);
	if (error)
		complain("%s.json: %s", resources->path, strerror(error));
	else if (send(fd, "ok\n", 3, MSG_NOSIGNAL) < 0)
		complain("%s: gone before the answer: %s", resources->path, strerror(errno));
	close(fd);
}

int resources_listen(struct host *host, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct resources *resources;

	if (strlen(path) >= sizeof(address.sun_path))
		return ENAMETOOLONG;
	if (host->resources)
		return EEXIST;
	if (!(resources = calloc(1, sizeof(*resources))))
		return ENOMEM;
	strcpy(address.sun_path, path);
	strcpy(resources->path, path);
	resources->host = host;
	unlink(path);
	resources->watch = (struct watch){ asked, socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) };
	if (resources->watch.fd < 0 || bind(resources->watch.fd, (struct sockaddr *)&address, sizeof(address)) ||
	    chmod(path, 0600) || listen(resources->watch.fd, 8) || watch_add(&resources->watch)) {
		int error = errno;

		watch_remove(&resources->watch);
		free(resources);
		return error;
	}
	host->resources = resources;
	return 0;
}

void resources_end(struct host *host)
{
	if (!host->resources)
		return;
	watch_remove(&host->resources->watch);
	unlink(host->resources->path);
	free(host->resources);
	host->resources = NULL;
}
