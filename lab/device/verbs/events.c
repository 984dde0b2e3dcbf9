/* Taking events from the queue that the device fills: the descriptor counts them, so reading it waits and says EAGAIN. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "soft.h"

/* The next record that has not been taken back; 0: there is none. */
static int next_record(struct soft_events *events, struct rnic_event *event)
{
	struct rnic_events *queue = events->queue;
	int found = 0;

	pthread_mutex_lock(&events->lock);
	while (!found && queue->consumed != __atomic_load_n(&queue->produced, __ATOMIC_ACQUIRE)) {
		*event = queue->event[queue->consumed % RNIC_EVENTS_SLOTS];
		found = event->kind != RNIC_EVENT_NONE;
		__atomic_store_n(&queue->consumed, queue->consumed + 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&events->lock);
	return found;
}

int soft_events_take(struct soft_events *events, struct device_link *link, struct rnic_event *event)
{
	uint64_t one;

	do {
		ssize_t got = read(events->fd, &one, sizeof(one));

		if (got != sizeof(one)) {
			if (got >= 0)
				errno = EIO;
			return -1;
		}
	} while (!next_record(events, event));
	if (__atomic_load_n(&events->queue->behind, __ATOMIC_ACQUIRE)) {
		struct rnic_call call = { .name = CALL_EVENTS };

		device_link_call(link, &call);
	}
	return 0;
}

/* The kernel takes events about an object off its list when it ends; the descriptor must count so many less. */
void soft_events_forget(struct soft_events *events, uint32_t kind, uint64_t cookie)
{
	struct rnic_events *queue = events->queue;
	uint32_t forgotten = 0;

	pthread_mutex_lock(&events->lock);
	for (uint32_t i = queue->consumed; i != __atomic_load_n(&queue->produced, __ATOMIC_ACQUIRE); i++) {
		struct rnic_event *event = &queue->event[i % RNIC_EVENTS_SLOTS];

		if (event->kind != kind || event->cookie != cookie)
			continue;
		event->kind = RNIC_EVENT_NONE;
		forgotten++;
	}
	pthread_mutex_unlock(&events->lock);
	/* Somebody may have taken one already, and finds that there is nothing for it. */
	for (; forgotten; forgotten--) {
		struct pollfd counted = { .fd = events->fd, .events = POLLIN };
		uint64_t one;

		if (poll(&counted, 1, 0) != 1 || read(events->fd, &one, sizeof(one)) != sizeof(one))
			return;
	}
}
