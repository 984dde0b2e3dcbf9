/* The engine's end of a ring, whose other end may be anybody's. */
#include "internal.h"

void rnic_queue_init(struct rnic_queue *queue, struct rnic_ring *ring)
{
	*queue = (struct rnic_queue){ .ring = ring };
	if (!ring)
		return;
	queue->stride = ring->stride;
	queue->mask = ring->slots - 1;
	queue->depth = ring->depth;
}

uint32_t rnic_queue_produced(const struct rnic_queue *queue)
{
	uint32_t produced;

	if (!queue->ring)
		return queue->head;
	produced = __atomic_load_n(&queue->ring->produced, __ATOMIC_ACQUIRE);
	return produced - queue->head > queue->depth ? queue->head : produced;
}

const void *rnic_queue_at(const struct rnic_queue *queue, uint32_t counter)
{
	return queue->ring->elements + (size_t)(counter & queue->mask) * queue->stride;
}

void rnic_queue_consume(struct rnic_queue *queue, uint32_t head)
{
	queue->head = head;
	if (queue->ring)
		__atomic_store_n(&queue->ring->consumed, head, __ATOMIC_RELEASE);
}

bool rnic_queue_receive(struct rnic_queue *queue, uint32_t counter, uint32_t max_sge, struct rnic_taken *taken)
{
	const struct rnic_receive *receive;

	if (rnic_queue_produced(queue) - queue->head <= counter - queue->head)
		return false;
	receive = rnic_queue_at(queue, counter);
	taken->wr_id = receive->wr_id;
	taken->num_sge = __atomic_load_n(&receive->num_sge, __ATOMIC_RELAXED);
	if (taken->num_sge > max_sge)
		taken->num_sge = max_sge;
	taken->length = 0;
	for (uint32_t i = 0; i < taken->num_sge; i++) {
		taken->sges[i] = receive->sges[i];
		taken->length += taken->sges[i].length;
	}
	return true;
}
