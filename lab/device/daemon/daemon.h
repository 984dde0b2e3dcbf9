/*
 * The daemon of a rack: the devices of its hosts, and the network between them.
 *
 * One thread. It looks at the shared memory of every client for doorbells and calls, lets the engine work, and sleeps on its
 * descriptors when there is nothing to do until a given time.
 */
#ifndef RNIC_DAEMON_H
#define RNIC_DAEMON_H

#include <stdbool.h>
#include <sys/types.h>

#include "../serve/serve.h"
#include "../wire/area.h"

#define NANOSECONDS UINT64_C(1000000000)

/* What an epoll event leads to: each kind of watched thing begins with one of these. */
struct watch {
	void (*ready)(struct watch *watch);
	int fd;
};

struct client;

struct follower;

struct resources;

#define HOST_GIDS 128 /* the longest table that a device has */

struct host {
	struct watch socket; /* first */
	char name[32];
	char path[108]; /* of the socket */
	struct rnic_listed listed;
	struct rnic_device *device;
	dev_t node;
	bool faults; /* calls of the data path ask first */
	char shown[256]; /* the device's folder in the host's sysfs; empty: it has none */
	struct follower *follower;
	struct resources *resources;
	struct host *next;
};

struct extent {
	char *base;
	size_t size;
};

/* A process's opening of a device. */
struct client {
	struct served served; /* first */
	struct watch bell, process; /* its doorbell's eventfd, its pidfd */
	struct host *host;
	uint64_t id;
	pid_t pid;
	int memory_fd;	   /* /proc/PID/mem: of the address space that asked, whatever the process does later */
	uint64_t area_at;  /* in that address space */
	uint64_t checked;  /* at this turn of the loop the address space was there */
	bool gone;	   /* the process or its address space has ended */
	struct rnic_area *area;
	struct extent extents[RNIC_EXTENTS];
	uint32_t extent_count;
	uint64_t due[RNIC_CALL_SLOTS]; /* when a delayed call is served; 0: none waits */
	int verdict[RNIC_CALL_SLOTS];  /* and with which errno it fails */
	struct client *next;
};

extern struct rnic_fabric *fabric;
extern struct host *hosts;
extern struct client *clients;
extern uint64_t turn; /* of the loop */
extern bool stopping;

uint64_t clock_now(void *unused);
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* loop.c: 0 or an errno. */
int watch_add(struct watch *watch);
void watch_remove(struct watch *watch);
void loop_run(void);

/* host.c */
struct host *host_find(const char *name);
int host_add(const char *name, const char *device, const char *socket, const char *node, dev_t number);
void host_remove_all(void);

/* shown.c: an entry of the GID table, and its files where the host's sysfs is laid out; all zero: the entry is empty. */
int host_set_gid(struct host *host, int index, const uint8_t gid[16], uint32_t ifindex);
int host_show(struct host *host, const char *folder);

/* addresses.c: the table follows the IPv4 addresses of that network in the namespace at `path` and below it. */
int host_follow(struct host *host, const char *path, uint32_t network, uint32_t mask);
void host_follow_end(struct host *host);

/* resources.c: whoever connects to the socket at `path` has the list of queue pairs written anew to PATH.json. */
int resources_listen(struct host *host, const char *path);
void resources_end(struct host *host);

/* client.c */
int client_open(struct host *host, pid_t pid, uint64_t area, const int *descriptors, struct rnic_answer *answer);
bool client_is_known(pid_t pid, uint64_t id);
void client_close(struct client *client);
/* Another piece of shared memory. */
int client_extend(struct client *client, struct rnic_call *call);
/* Ends those that are gone, and those whose process has become another program. */
void clients_sweep(bool look);

/* memory.c: the engine's ways to a client's memory. */
extern const struct rnic_sinks client_memory;
bool client_is_there(struct client *client);
int client_check_region(struct client *client, uint64_t address, uint64_t length, bool writes);

/* calls.c: whether anything was found. */
bool client_look(struct client *client);
/* When the next delayed call of this client is due, or RNIC_NEVER. */
uint64_t client_due(const struct client *client);

/* control.c: answers one line of a command into `answer`, which always has a last line "ok" or "error: …". */
#define CONTROL_ANSWER 8192
void control_command(char *line, char answer[CONTROL_ANSWER]);
int control_listen(const char *path);
#endif
