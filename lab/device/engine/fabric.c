/* Time and work: what can be done now, and what becomes due. */
#include "internal.h"

/* Of a QP whose turn it is: few enough that the others are not kept waiting. */
#define PIECES_A_TURN 8

struct rnic_fabric *rnic_fabric_new(uint64_t (*now)(void *clock), void *clock)
{
	struct rnic_fabric *fabric = calloc(1, sizeof(*fabric));

	if (!fabric)
		return NULL;
	fabric->now = now;
	fabric->clock = clock;
	fabric->time = now(clock);
	fabric->random = 0x9e3779b97f4a7c15;
	rnic_list_init(&fabric->runnable);
	rnic_list_init(&fabric->devices);
	for (uint32_t i = 0; i < RNIC_PARKED; i++)
		rnic_list_init(&fabric->parked[i]);
	return fabric;
}

/* Packets are what is still in the heap once the devices are gone: each is one allocation that begins with its event. */
void rnic_fabric_free(struct rnic_fabric *fabric)
{
	if (!fabric)
		return;
	while (!rnic_list_empty(&fabric->devices))
		rnic_device_free(rnic_of(fabric->devices.next, struct rnic_device, node));
	for (uint32_t i = 1; i <= fabric->events; i++)
		free(fabric->heap[i]);
	free(fabric->heap);
	free(fabric);
}

/* xorshift: a run with the same calls is the same run. */
uint64_t rnic_random(struct rnic_fabric *fabric, uint64_t below)
{
	fabric->random ^= fabric->random << 13;
	fabric->random ^= fabric->random >> 7;
	fabric->random ^= fabric->random << 17;
	return fabric->random % below;
}

static bool before(const struct rnic_event *one, const struct rnic_event *other)
{
	/* What was armed first fires first: a wire keeps the order. */
	return one->at < other->at || (one->at == other->at && one->order < other->order);
}

static void put(struct rnic_fabric *fabric, uint32_t place, struct rnic_event *event)
{
	fabric->heap[place] = event;
	event->place = place;
}

static void rise(struct rnic_fabric *fabric, uint32_t place, struct rnic_event *event)
{
	for (; place > 1 && before(event, fabric->heap[place / 2]); place /= 2)
		put(fabric, place, fabric->heap[place / 2]);
	put(fabric, place, event);
}

static void sink(struct rnic_fabric *fabric, uint32_t place, struct rnic_event *event)
{
	for (uint32_t child; (child = place * 2) <= fabric->events; place = child) {
		if (child < fabric->events && before(fabric->heap[child + 1], fabric->heap[child]))
			child++;
		if (!before(fabric->heap[child], event))
			break;
		put(fabric, place, fabric->heap[child]);
	}
	put(fabric, place, event);
}

void rnic_event_cancel(struct rnic_fabric *fabric, struct rnic_event *event)
{
	uint32_t place = event->place;

	if (!place)
		return;
	event->place = 0;
	struct rnic_event *last = fabric->heap[fabric->events--];
	if (last == event)
		return;
	if (place > 1 && before(last, fabric->heap[place / 2]))
		rise(fabric, place, last);
	else
		sink(fabric, place, last);
}

void rnic_event_arm(struct rnic_fabric *fabric, struct rnic_event *event, uint64_t at)
{
	rnic_event_cancel(fabric, event);
	if (fabric->events + 1 >= fabric->heap_size) {
		uint32_t size = fabric->heap_size ? fabric->heap_size * 2 : 1024;
		struct rnic_event **heap = realloc(fabric->heap, size * sizeof(struct rnic_event *));

		/* A device without memory for its own timers cannot go on in any defined way. */
		if (!heap)
			abort();
		fabric->heap = heap;
		fabric->heap_size = size;
	}
	event->at = at;
	event->order = fabric->order++;
	fabric->events++;
	rise(fabric, fabric->events, event);
}

void rnic_runnable(struct rnic_qp *qp)
{
	if (!qp->run.next)
		rnic_list_add(&qp->device->fabric->runnable, &qp->run);
}

void rnic_park(struct rnic_qp *qp)
{
	if (!qp->park.next)
		rnic_list_add(&qp->device->fabric->parked[qp->attr.dest_qp_num % RNIC_PARKED], &qp->park);
	qp->req.waiting = true;
}

void rnic_wake_parked(struct rnic_fabric *fabric, uint32_t qpn)
{
	struct rnic_node *list = &fabric->parked[qpn % RNIC_PARKED];

	for (struct rnic_node *node = list->next, *next; node != list; node = next) {
		struct rnic_qp *qp = rnic_of(node, struct rnic_qp, park);

		next = node->next;
		if (qp->attr.dest_qp_num != qpn)
			continue;
		rnic_list_remove(node);
		qp->req.waiting = false;
		rnic_runnable(qp);
	}
}

static int turn(struct rnic_qp *qp, int most)
{
	int done = 0;

	while (done < most && (rnic_reply_piece(qp) || rnic_send_piece(qp)))
		done++;
	return done;
}

bool rnic_run(struct rnic_fabric *fabric, int messages)
{
	fabric->time = fabric->now(fabric->clock);
	for (;;) {
		if (fabric->events && fabric->heap[1]->at <= fabric->time) {
			struct rnic_event *event = fabric->heap[1];

			if (messages-- <= 0)
				return true;
			rnic_event_cancel(fabric, event);
			event->fire(fabric, event);
		} else if (!rnic_list_empty(&fabric->runnable)) {
			struct rnic_qp *qp = rnic_of(fabric->runnable.next, struct rnic_qp, run);
			int most = messages < PIECES_A_TURN ? messages : PIECES_A_TURN;

			if (messages <= 0)
				return true;
			rnic_list_remove(&qp->run);
			int done = turn(qp, most);
			if (done == most)
				rnic_runnable(qp);
			messages -= done ? done : 1;
		} else {
			return false;
		}
	}
}

uint64_t rnic_next(const struct rnic_fabric *fabric)
{
	if (!rnic_list_empty(&fabric->runnable))
		return fabric->time;
	return fabric->events ? fabric->heap[1]->at : RNIC_NEVER;
}
