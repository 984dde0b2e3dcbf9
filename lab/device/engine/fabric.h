/* Time and work: fabric.c. */
#ifndef RNIC_FABRIC_H
#define RNIC_FABRIC_H

#include <errno.h>
#include <stdlib.h>

#include "engine.h"
#include "numbers.h"

struct rnic_event {
	uint64_t at, order;
	void (*fire)(struct rnic_fabric *fabric, struct rnic_event *event);
	uint32_t place; /* in the heap, from 1; 0: not armed */
};

void rnic_event_arm(struct rnic_fabric *fabric, struct rnic_event *event, uint64_t at);
void rnic_event_cancel(struct rnic_fabric *fabric, struct rnic_event *event);

/* A message travels in pieces of so many bytes: small enough for QPs to share a wire, large enough to cost little. */
#define RNIC_PIECE (64u << 10)

/* A doubly linked list through one member. */
struct rnic_node {
	struct rnic_node *next, *previous;
};

static inline void rnic_list_init(struct rnic_node *head) { head->next = head->previous = head; }
static inline bool rnic_list_empty(const struct rnic_node *head) { return head->next == head; }

static inline void rnic_list_add(struct rnic_node *head, struct rnic_node *node)
{
	node->next = head;
	node->previous = head->previous;
	head->previous->next = node;
	head->previous = node;
}

static inline void rnic_list_remove(struct rnic_node *node)
{
	if (!node->next)
		return;
	node->next->previous = node->previous;
	node->previous->next = node->next;
	node->next = node->previous = NULL;
}

#define rnic_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

#define RNIC_PARKED 4096u
#define RNIC_GID_SLOTS 1024u

/* A device by its GID. */
struct rnic_gid_slot {
	uint8_t raw[16];
	struct rnic_device *device; /* NULL: free */
};

struct rnic_fabric {
	uint64_t (*now)(void *clock);
	void *clock;
	uint64_t time, order;
	struct rnic_event **heap; /* from index 1 */
	uint32_t events, heap_size;
	struct rnic_node runnable; /* QPs (member run) */
	struct rnic_node devices;
	struct rnic_node parked[RNIC_PARKED]; /* QPs (member park) by the number of their destination */
	uint64_t random;
	struct rnic_gid_slot gids[RNIC_GID_SLOTS]; /* made anew when a table changes */
	unsigned char staging[RNIC_PIECE]; /* one piece on its way; free again when rnic_transmit returns */
};

uint64_t rnic_random(struct rnic_fabric *fabric, uint64_t below);
#endif
