/*
 * The device's side of an open context: answers calls by the engine, carries completions and events to their queues.
 *
 * It knows neither sockets nor processes: whoever holds one of these says how a reference becomes memory and a number a
 * descriptor. The lock of the fabric is held in every function.
 */
#ifndef RNIC_SERVE_H
#define RNIC_SERVE_H

#include <stddef.h>

#include "../engine/engine.h"
#include "../wire/call.h"
#include "../wire/events.h"

struct served;

struct served_ops {
	/* The memory behind a reference, NULL unless all `size` bytes of it are there. */
	void *(*memory)(struct served *served, rnic_reference reference, size_t size);
	/* A descriptor of the served process, as one of ours; -1 with errno. */
	int (*descriptor)(struct served *served, int fd);
	void (*close_descriptor)(struct served *served, int fd);
};

/* Events that found no room in their queue. */
struct served_event {
	struct rnic_event event;
	struct served_event *next;
};

struct served_events {
	struct rnic_events *queue;
	int fd;
	struct served_event *first, **last;
	int users;
};

struct served_cq {
	struct served *served;
	struct served_events *channel; /* NULL: none */
	struct rnic_ring *ring;
	uint64_t cookie;
};

/* What the server keeps about an object, by the object's handle; NULL: nothing. */
struct served_table {
	void **at;
	uint32_t room;
};

static inline void *served_at(const struct served_table *table, uint32_t handle)
{
	return handle < table->room ? table->at[handle] : NULL;
}

struct served {
	const struct served_ops *ops;
	struct rnic_sinks sinks; /* the engine keeps a pointer to them */
	struct rnic_device *device;
	struct rnic_context *context;
	struct served_events async;
	struct served_table channels; /* of struct served_events */
	struct served_table cqs;      /* of struct served_cq */
};

/*
 * Opens the device. read and write reach the process's memory; both are given `served`. The queue and the eventfd of
 * asynchronous events stay the caller's.
 */
int serve_open(struct served *served, const struct served_ops *ops, struct rnic_device *device,
	       const struct rnic_sinks *memory, struct rnic_events *async, int async_fd);

/* Ends every object; queues are not touched any more. */
void serve_close(struct served *served);

/*
 * What the fault table says of this call, before it is served: 0 or an errno, and a delay in ns (RNIC_NEVER: no answer).
 */
int serve_verdict(struct served *served, const struct rnic_call *call, uint64_t *delay);

/* Answers in place: call->error and what the call returns. */
void serve_call(struct served *served, struct rnic_call *call);
#endif
