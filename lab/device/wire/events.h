/*
 * Events on their way to an application: records in memory that both sides see, counted by an eventfd in semaphore mode.
 *
 * The server appends a record and then adds one to the eventfd; whoever has taken one off the eventfd may take a record.
 * So a blocking read, O_NONBLOCK, poll and epoll mean what they mean on the kernel's descriptor. Consumers hold a lock of
 * their own process.
 */
#ifndef RNIC_EVENTS_H
#define RNIC_EVENTS_H

#include <stdint.h>

#define RNIC_EVENTS_SLOTS 512

struct rnic_event {
	uint64_t cookie; /* the application's object, or a port's number */
	uint32_t type;	 /* enum ibv_event_type; of completion events 0 */
	uint32_t kind;	 /* enum rnic_kind */
};

/* In `kind`: taken back, for its object has ended. */
#define RNIC_EVENT_NONE UINT32_MAX

struct rnic_events {
	_Alignas(64) uint32_t produced;
	uint32_t behind; /* set by the server: more wait for room; CALL_EVENTS brings them */
	_Alignas(64) uint32_t consumed;
	_Alignas(64) struct rnic_event event[RNIC_EVENTS_SLOTS];
};
#endif
