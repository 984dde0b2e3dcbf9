/*
 * How the library reaches its device: one of two ways, chosen when it is linked.
 *
 *	local.c		the engine is part of the library; devices exist in this process only
 *	remote.c	the engine is in a daemon, which serves all processes of all hosts
 *
 * Integer functions return 0 or a positive errno.
 */
#ifndef DEVICE_LINK_H
#define DEVICE_LINK_H

#include <stdbool.h>
#include <stddef.h>

#include "../wire/area.h"

/* One opening of a device. Both ways put this in front of what they need. */
struct device_link {
	int cmd_fd, async_fd;
	uint32_t ways;		    /* enum rnic_ways */
	bool left_behind;	    /* a restore: whoever touches it now is wrong; read without a lock */
	struct rnic_events *async;
	const uint32_t *faults;	    /* nonzero: the data path asks first */
};

/* The devices that there are, at most `most` of them. */
int device_link_list(struct rnic_listed *devices, int most, int *count);

int device_link_open(const struct rnic_listed *device, struct device_link **link);
void device_link_close(struct device_link *link);

/* Asks and waits for the answer; the call's own error. */
int device_link_call(struct device_link *link, struct rnic_call *call);

/* Memory of at least `size` bytes, zeroed, at a cache line's start, that both sides see. ENOMEM. */
int device_link_alloc(struct device_link *link, size_t size, void **memory, rnic_reference *reference);
void device_link_free(struct device_link *link, void *memory);

/* The queues of this QP or SRQ have something new. */
void device_link_doorbell(struct device_link *link, uint32_t handle, bool is_srq);

/* In local mode a library without a thread does the work when it is looked for. */
void device_link_progress(struct device_link *link);

/* Ends the process if a restore has left the object behind: no library may touch it. */
void device_link_check(const struct device_link *link, const char *function);

/* Whether a restore has left it behind: it will answer nothing any more. */
bool device_link_is_gone(struct device_link *link);
#endif
