/*
 * Devices of one process: the engine is called by whoever posts, or by a thread of the "hardware" (FAKE_ASYNC=1 in the
 * environment), which does a few pieces of work at a time, so that many states in between are seen.
 */
#define _GNU_SOURCE
#include "local.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

pthread_mutex_t local_lock = PTHREAD_MUTEX_INITIALIZER;
struct local_link *local_links;
struct rnic_device *local_devices[LOCAL_DEVICES];

static struct rnic_fabric *fabric;
static pthread_cond_t work_cond;
static int has_thread;
uint32_t local_faults;

static const struct {
	const char *name, *node;
	uint32_t first_qpn, first_key;
	uint8_t gids[2][16];
} known[LOCAL_DEVICES] = {
	{ "fake0", "uverbs0", 17, 0x1000,
	  { { 0xfe, 0x80, [15] = 1 }, { [10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1 } } },
	{ "fake1", "uverbs1", 5000, 0x900000,
	  { { 0xfe, 0x80, [15] = 2 }, { [10] = 0xff, [11] = 0xff, [12] = 10, [15] = 2 } } },
};

/* The kernel's own: hardware has a clock that no library of its process can make jump. */
static uint64_t now(void *clock)
{
	struct timespec time;

	(void)clock;
	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void *hardware(void *unused)
{
	unsigned int seed = 1;

	(void)unused;
	pthread_mutex_lock(&local_lock);
	for (;;) {
		if (!rnic_run(fabric, 1 + rand_r(&seed) % 4)) {
			uint64_t next = rnic_next(fabric), most = now(NULL) + 1000000000u;
			struct timespec until;

			if (next > most)
				next = most;
			until = (struct timespec){ (time_t)(next / 1000000000u), (long)(next % 1000000000u) };
			pthread_cond_timedwait(&work_cond, &local_lock, &until);
		}
		pthread_mutex_unlock(&local_lock);
		sched_yield();
		pthread_mutex_lock(&local_lock);
	}
	return NULL;
}

static void start_thread(void)
{
	pthread_condattr_t attributes;
	pthread_t thread;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&work_cond, &attributes);
	pthread_condattr_destroy(&attributes);
	has_thread = !pthread_create(&thread, NULL, hardware, NULL);
	if (has_thread)
		pthread_detach(thread);
}

int local_start(void)
{
	if (fabric)
		return 0;
	if (!(fabric = rnic_fabric_new(now, NULL)))
		return ENOMEM;
	for (int i = 0; i < LOCAL_DEVICES; i++) {
		local_devices[i] = rnic_device_new(fabric, known[i].name, known[i].name);
		if (!local_devices[i])
			return ENOMEM;
		/* The tests count on numbers that only grow unless they set them back, and on requests that wait for their receive. */
		rnic_set(local_devices[i], "reuse_numbers", 0);
		rnic_set(local_devices[i], "wait_for_peer", 1);
		rnic_numbers(local_devices[i], known[i].first_qpn, known[i].first_key);
		for (int gid = 0; gid < 2; gid++)
			rnic_gid_set(local_devices[i], gid, known[i].gids[gid], 1, 0);
	}
	return 0;
}

void local_work(void)
{
	if (has_thread)
		pthread_cond_signal(&work_cond);
	else
		while (rnic_run(fabric, 64))
			;
}

int device_link_list(struct rnic_listed *devices, int most, int *count)
{
	pthread_mutex_lock(&local_lock);
	int error = local_start();
	if (!error)
		error = local_failure("get_device_list");
	pthread_mutex_unlock(&local_lock);
	*count = 0;
	for (int i = 0; !error && i < LOCAL_DEVICES && i < most; i++) {
		devices[i] = (struct rnic_listed){ .guid = (uint64_t)(i + 1) << 56, .index = (uint32_t)i };
		strcpy(devices[i].name, known[i].name);
		strcpy(devices[i].node, known[i].node);
		strcpy(devices[i].path, "/dev/null"); /* a device, if none that anything can be said to */
		++*count;
	}
	return error;
}

static void *memory_at(struct served *served, rnic_reference reference, size_t size)
{
	(void)served, (void)size;
	return (void *)(uintptr_t)reference;
}

static int same_descriptor(struct served *served, int fd)
{
	(void)served;
	return fd;
}

static void leave_descriptor(struct served *served, int fd)
{
	(void)served, (void)fd;
}

static const struct served_ops in_process = { memory_at, same_descriptor, leave_descriptor };

static int read_memory(void *process, const struct rnic_span *spans, int count, void *buffer)
{
	char *at = buffer;

	(void)process;
	for (int i = 0; i < count; at += spans[i++].length)
		memcpy(at, (const void *)(uintptr_t)spans[i].address, spans[i].length);
	return 0;
}

static int write_memory(void *process, const struct rnic_span *spans, int count, const void *buffer)
{
	const char *at = buffer;

	(void)process;
	for (int i = 0; i < count; at += spans[i++].length)
		memcpy((void *)(uintptr_t)spans[i].address, at, spans[i].length);
	return 0;
}

static int open_descriptors(struct device_link *link, const char *path)
{
	link->cmd_fd = open(path, O_RDWR | O_CLOEXEC);
	if (link->cmd_fd < 0)
		return errno;
	link->async_fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
	if (link->async_fd >= 0)
		return 0;
	int error = errno;
	close(link->cmd_fd);
	return error;
}

int device_link_open(const struct rnic_listed *device, struct device_link **link)
{
	static const struct rnic_sinks memory = { .read = read_memory, .write = write_memory };
	struct local_link *local = calloc(1, sizeof(*local));
	rnic_reference unused;
	uint64_t purge = 0, on_demand = 0;
	void *async;

	if (!local)
		return ENOMEM;
	int error = device_link_alloc(&local->link, sizeof(struct rnic_events), &async, &unused);
	if (!error && (error = open_descriptors(&local->link, device->path)))
		free(async);
	if (error) {
		free(local);
		return error;
	}
	local->link.async = async;
	local->link.ways = RNIC_IMPORTS | RNIC_PARENT_DOMAINS;
	local->link.faults = &local_faults;
	pthread_mutex_lock(&local_lock);
	rnic_get(local_devices[device->index], "purge", &purge);
	rnic_get(local_devices[device->index], "on_demand", &on_demand);
	local->link.ways |= (purge ? RNIC_PURGES : 0) | (on_demand ? RNIC_ON_DEMAND : 0);
	error = local_failure("open_device");
	if (!error && !has_thread && getenv("FAKE_ASYNC"))
		start_thread();
	if (!error)
		error = serve_open(&local->served, &in_process, local_devices[device->index], &memory,
				   local->link.async, local->link.async_fd);
	if (!error) {
		local->next = local_links;
		local_links = local;
	}
	pthread_mutex_unlock(&local_lock);
	if (error) {
		close(local->link.cmd_fd);
		close(local->link.async_fd);
		free(async);
		free(local);
		return error;
	}
	*link = &local->link;
	return 0;
}

void device_link_close(struct device_link *link)
{
	struct local_link *local = (struct local_link *)link;

	pthread_mutex_lock(&local_lock);
	for (struct local_link **at = &local_links; *at; at = &(*at)->next)
		if (*at == local) {
			*at = local->next;
			break;
		}
	serve_close(&local->served);
	pthread_mutex_unlock(&local_lock);
	close(link->cmd_fd);
	close(link->async_fd);
	free(link->async);
	free(local);
}

static void wait_for(uint64_t delay)
{
	struct timespec rest = { (time_t)(delay / 1000000000u), (long)(delay % 1000000000u) };

	while (delay == RNIC_NEVER)
		pause();
	while (delay && nanosleep(&rest, &rest) && errno == EINTR)
		;
}

#define RNIC_CALL_TEXT(name, text) [name] = text,
static const char *const texts[RNIC_CALL_COUNT] = { RNIC_CALLS(RNIC_CALL_TEXT) };

int device_link_call(struct device_link *link, struct rnic_call *call)
{
	struct local_link *local = (struct local_link *)link;
	uint64_t delay = 0;
	int error;

	pthread_mutex_lock(&local_lock);
	const char *verb = call->name == CALL_DATA_PATH ? call->text : texts[call->name];
	error = verb ? local_failure(verb) : 0;
	if (!error)
		error = serve_verdict(&local->served, call, &delay);
	if (delay) {
		pthread_mutex_unlock(&local_lock);
		wait_for(delay);
		pthread_mutex_lock(&local_lock);
	}
	if (!error && !link->left_behind) {
		serve_call(&local->served, call);
		error = call->error;
		local_work();
	}
	pthread_mutex_unlock(&local_lock);
	return error;
}

int device_link_alloc(struct device_link *link, size_t size, void **memory, rnic_reference *reference)
{
	(void)link;
	size = (size + RNIC_LINE - 1) / RNIC_LINE * RNIC_LINE;
	*memory = aligned_alloc(RNIC_LINE, size);
	if (!*memory)
		return ENOMEM;
	memset(*memory, 0, size);
	*reference = (uintptr_t)*memory;
	return 0;
}

void device_link_free(struct device_link *link, void *memory)
{
	(void)link;
	free(memory);
}

void device_link_doorbell(struct device_link *link, uint32_t handle, bool is_srq)
{
	struct local_link *local = (struct local_link *)link;

	pthread_mutex_lock(&local_lock);
	if (!link->left_behind) {
		if (is_srq)
			rnic_srq_doorbell(local->served.context, handle);
		else
			rnic_doorbell(local->served.context, handle);
		local_work();
	}
	pthread_mutex_unlock(&local_lock);
}

/* What waits for time to pass, a timer or the wire, comes when somebody looks. */
void device_link_progress(struct device_link *link)
{
	(void)link;
	if (has_thread)
		return;
	pthread_mutex_lock(&local_lock);
	if (rnic_next(fabric) <= now(NULL))
		local_work();
	pthread_mutex_unlock(&local_lock);
}

bool device_link_is_gone(struct device_link *link)
{
	return __atomic_load_n(&link->left_behind, __ATOMIC_RELAXED);
}

void device_link_check(const struct device_link *link, const char *function)
{
	if (!__atomic_load_n(&link->left_behind, __ATOMIC_RELAXED))
		return;
	fprintf(stderr, "device: %s on an object that was left behind by a restore\n", function);
	abort();
}
