/* An opening of a device that a daemon has. */
#ifndef DEVICE_REMOTE_H
#define DEVICE_REMOTE_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <sys/types.h>

#include "link.h"

/* A piece of memory that the daemon sees, too. */
struct remote_extent {
	char *base;
	size_t size, used;
};

#define REMOTE_CLASSES 41 /* by the size's logarithm */

struct remote_block;

struct remote_link {
	struct device_link link; /* first: the library knows no more */
	struct rnic_area *area;
	int bell_fd, pid; /* of the process that opened it */
	dev_t device; /* what cmd_fd is */
	uint64_t id;
	sem_t free_slots;
	bool was_left; /* by a restore: what cmd_fd is then */
	dev_t placeholder_device;
	ino_t placeholder;
	struct remote_link *next;

	pthread_mutex_t heap_lock;
	struct remote_extent extents[RNIC_EXTENTS];
	uint32_t extent_count;
	struct remote_block *unused[REMOTE_CLASSES];
};

/* socket.c: one question, one answer. `descriptors`: RNIC_OPEN_DESCRIPTORS of them, or NULL. */
int remote_ask(const struct rnic_question *question, const int *descriptors, struct rnic_answer *answer);

/* Gives back what openings have that a restore has left behind, once the guest library has let go of them: see leftovers.c. */
void remote_remember(struct remote_link *remote);
void remote_forget(struct remote_link *remote);
void remote_reap(void);

/* All that an opening has. */
void remote_free(struct remote_link *remote);

/* remote.c: whether cmd_fd is what it was when it was opened. */
bool remote_has_device(const struct remote_link *remote);

/* remote.c: wakes the daemon if it sleeps. */
void remote_kick(struct remote_link *remote);

/* A memfd of that size, mapped. -1 with errno. */
int remote_memory(size_t size, void **base);
#endif
