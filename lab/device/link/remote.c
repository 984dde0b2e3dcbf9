/* The library's side of a daemon: opening by a question on its socket, then calls and doorbells in shared memory. */
#define _GNU_SOURCE
#include "remote.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FIRST_EXTENT (1u << 20)

int device_link_list(struct rnic_listed *devices, int most, int *count)
{
	struct rnic_question question = { .version = RNIC_WIRE_VERSION, .ask = RNIC_ASK_LIST };
	struct rnic_answer answer;
	int error = remote_ask(&question, NULL, &answer);

	*count = 0;
	/* No daemon: a host without a device. */
	if (error == ENOENT || error == ECONNREFUSED)
		return 0;
	for (uint32_t i = 0; !error && i < answer.count && *count < most; i++)
		devices[(*count)++] = answer.devices[i];
	return error;
}

/* Zero: it is none. */
static dev_t device_of(const struct remote_link *remote)
{
	struct stat file;

	return fstat(remote->link.cmd_fd, &file) || !S_ISCHR(file.st_mode) ? 0 : file.st_rdev;
}

bool remote_has_device(const struct remote_link *remote)
{
	return device_of(remote) == remote->device;
}

static int open_remote(struct remote_link *remote, const struct rnic_listed *device)
{
	struct rnic_question question = { .version = RNIC_WIRE_VERSION, .ask = RNIC_ASK_OPEN };
	struct rnic_answer answer;
	void *base = NULL;

	remote->link.cmd_fd = open(device->path, O_RDWR | O_CLOEXEC);
	if (remote->link.cmd_fd < 0)
		return errno;
	remote->device = device_of(remote);
	remote->link.async_fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
	remote->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (remote->link.async_fd < 0 || remote->bell_fd < 0)
		return errno;
	int memory = remote_memory(FIRST_EXTENT, &base);
	if (memory < 0)
		return errno;
	remote->area = base;
	remote->area->magic = RNIC_AREA_MAGIC;
	remote->area->version = RNIC_WIRE_VERSION;
	/* Behind the area, at a line's start, is the first room for queues. */
	size_t used = (sizeof(*remote->area) + RNIC_LINE - 1) / RNIC_LINE * RNIC_LINE;
	remote->extents[0] = (struct remote_extent){ base, FIRST_EXTENT, used };
	remote->extent_count = 1;
	memcpy(question.name, device->name, sizeof(question.name));
	question.area = (uintptr_t)base;
	int descriptors[RNIC_OPEN_DESCRIPTORS] = { remote->link.cmd_fd, memory, remote->bell_fd, remote->link.async_fd };
	int error = remote_ask(&question, descriptors, &answer);
	close(memory);
	remote->link.ways = answer.ways;
	remote->id = answer.id;
	return error;
}

void remote_free(struct remote_link *remote)
{
	struct device_link *link = &remote->link;

	for (uint32_t i = 0; i < remote->extent_count; i++)
		munmap(remote->extents[i].base, remote->extents[i].size);
	if (remote->bell_fd >= 0)
		close(remote->bell_fd);
	if (link->async_fd >= 0)
		close(link->async_fd);
	if (link->cmd_fd >= 0)
		close(link->cmd_fd);
	sem_destroy(&remote->free_slots);
	free(remote);
}

void device_link_close(struct device_link *link)
{
	struct remote_link *remote = (struct remote_link *)link;

	remote_forget(remote);
	remote_free(remote);
}

int device_link_open(const struct rnic_listed *device, struct device_link **link)
{
	struct remote_link *remote = calloc(1, sizeof(*remote));

	if (!remote)
		return ENOMEM;
	remote_reap();
	remote->pid = getpid();
	remote->link.cmd_fd = remote->link.async_fd = remote->bell_fd = -1;
	sem_init(&remote->free_slots, 0, RNIC_CALL_SLOTS);
	pthread_mutex_init(&remote->heap_lock, NULL);
	int error = open_remote(remote, device);
	if (error) {
		remote_free(remote);
		return error;
	}
	remote_remember(remote);
	remote->link.async = &remote->area->async;
	remote->link.faults = &remote->area->faults;
	*link = &remote->link;
	return 0;
}

void remote_kick(struct remote_link *remote)
{
	uint64_t one = 1;
	ssize_t written;

	/* First what was written for the daemon, then the look at its word; it does it in the other order. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&remote->area->sleeping, __ATOMIC_RELAXED) ||
	    !__atomic_exchange_n(&remote->area->sleeping, 0, __ATOMIC_SEQ_CST))
		return;
	written = write(remote->bell_fd, &one, sizeof(one));
	(void)written; /* full: it has been told often enough */
}

static struct rnic_slot *take_slot(struct remote_link *remote, uint32_t *bit)
{
	/* The semaphore says that there is one. */
	while (sem_wait(&remote->free_slots) && errno == EINTR)
		;
	for (uint32_t i = 0;; i = (i + 1) % RNIC_CALL_SLOTS) {
		struct rnic_slot *slot = &remote->area->slots[i];
		uint32_t free = RNIC_SLOT_FREE;

		if (__atomic_compare_exchange_n(&slot->state, &free, RNIC_SLOT_TAKEN, 0, __ATOMIC_ACQUIRE,
						__ATOMIC_RELAXED)) {
			*bit = 1u << i;
			return slot;
		}
	}
}

/* A daemon that was killed has ended nothing in order: its socket tells, or another daemon that does not know this opening. */
static int is_unknown(const struct remote_link *remote)
{
	struct rnic_question question = { .version = RNIC_WIRE_VERSION, .ask = RNIC_ASK_ALIVE, .id = remote->id };
	struct rnic_answer answer;
	int error = remote_ask(&question, NULL, &answer);

	/* The child of a fork, which shares the memory, is known by no daemon. */
	return error == ECONNREFUSED || (error == ENOENT && remote->pid == getpid());
}

/*
 * Whether nobody will answer any more: the daemon has ended its side, or CRIU has put something else in the device's place, and
 * with it the memory has become this process's own.
 */
static int is_gone(const struct remote_link *remote)
{
	return __atomic_load_n(&remote->area->ended, __ATOMIC_ACQUIRE) || !remote_has_device(remote) ||
	       is_unknown(remote);
}

bool device_link_is_gone(struct device_link *link)
{
	const struct remote_link *remote = (struct remote_link *)link;

	if (!link->left_behind && !remote_has_device(remote))
		link->left_behind = true;
	return link->left_behind;
}

int device_link_call(struct device_link *link, struct rnic_call *call)
{
	struct remote_link *remote = (struct remote_link *)link;
	struct timespec second = { 1, 0 };
	uint32_t bit, state;
	struct rnic_slot *slot = take_slot(remote, &bit);
	int error = 0, saved = errno;

	slot->call = *call;
	__atomic_store_n(&slot->state, RNIC_SLOT_ASKED, __ATOMIC_RELEASE);
	__atomic_fetch_or(&remote->area->calls, bit, __ATOMIC_SEQ_CST);
	remote_kick(remote);
	while ((state = __atomic_load_n(&slot->state, __ATOMIC_ACQUIRE)) == RNIC_SLOT_ASKED)
		if (syscall(SYS_futex, &slot->state, FUTEX_WAIT, state, &second, NULL, 0) && errno == ETIMEDOUT &&
		    is_gone(remote)) {
			error = EIO;
			break;
		}
	errno = saved;
	if (!error) {
		*call = slot->call;
		error = call->error;
	}
	__atomic_store_n(&slot->state, RNIC_SLOT_FREE, __ATOMIC_RELEASE);
	sem_post(&remote->free_slots);
	return error;
}

void device_link_doorbell(struct device_link *link, uint32_t handle, bool is_srq)
{
	struct remote_link *remote = (struct remote_link *)link;
	uint64_t bell = (uint64_t)handle * 2 + is_srq, word = bell / 64;

	if (bell >= RNIC_BELLS) {
		struct rnic_call call = { .name = CALL_DOORBELL, .handle = handle, .number = is_srq };

		device_link_call(link, &call);
		return;
	}
	/* The bit above is set by whoever finds the word empty; the daemon takes the upper one back first. */
	if (!__atomic_fetch_or(&remote->area->bells[word], UINT64_C(1) << bell % 64, __ATOMIC_SEQ_CST))
		__atomic_fetch_or(&remote->area->bells_above[word / 64], UINT64_C(1) << word % 64, __ATOMIC_SEQ_CST);
	remote_kick(remote);
}

void device_link_progress(struct device_link *link)
{
	(void)link; /* the daemon's affair */
}

/* Nothing is marked here: what a restore has left behind does not answer (is_gone). */
void device_link_check(const struct device_link *link, const char *function)
{
	(void)link, (void)function;
}
