#include "events.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

void served_events_init(struct served_events *events, struct rnic_events *queue, int fd)
{
	*events = (struct served_events){ .queue = queue, .fd = fd };
	events->last = &events->first;
}

static int has_room(const struct rnic_events *queue)
{
	/* `consumed` is the application's word: whatever it says, the index below stays inside. */
	return queue->produced - __atomic_load_n(&queue->consumed, __ATOMIC_ACQUIRE) < RNIC_EVENTS_SLOTS;
}

static void append(struct served_events *events, const struct rnic_event *event)
{
	struct rnic_events *queue = events->queue;
	uint64_t one = 1;

	queue->event[queue->produced % RNIC_EVENTS_SLOTS] = *event;
	__atomic_store_n(&queue->produced, queue->produced + 1, __ATOMIC_RELEASE);
	/* Only now: who has taken one off the descriptor finds the record. */
	if (write(events->fd, &one, sizeof(one)) != sizeof(one))
		fprintf(stderr, "device: an event could not be signalled: %s\n", strerror(errno));
}

void served_events_push(struct served_events *events, const struct rnic_event *event)
{
	if (!events->first && has_room(events->queue)) {
		append(events, event);
		return;
	}
	struct served_event *waiting = malloc(sizeof(*waiting));

	if (!waiting) {
		fprintf(stderr, "device: out of memory for an event, it is lost\n");
		return;
	}
	*waiting = (struct served_event){ .event = *event };
	*events->last = waiting;
	events->last = &waiting->next;
	__atomic_store_n(&events->queue->behind, 1, __ATOMIC_RELEASE);
}

void served_events_catch_up(struct served_events *events)
{
	while (events->first && has_room(events->queue)) {
		struct served_event *next = events->first;

		append(events, &next->event);
		events->first = next->next;
		free(next);
	}
	if (!events->first) {
		events->last = &events->first;
		__atomic_store_n(&events->queue->behind, 0, __ATOMIC_RELEASE);
	}
}

void served_events_forget(struct served_events *events, uint32_t kind, uint64_t cookie)
{
	struct served_event **link = &events->first;

	while (*link) {
		struct served_event *waiting = *link;

		if (!cookie || (waiting->event.kind == kind && waiting->event.cookie == cookie)) {
			*link = waiting->next;
			free(waiting);
		} else {
			link = &waiting->next;
		}
	}
	events->last = link;
}
