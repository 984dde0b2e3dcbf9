/* Completion queues. */
#include "internal.h"

int rnic_create_cq(struct rnic_context *context, struct rnic_ring *ring, uint64_t cookie, uint32_t *handle)
{
	struct rnic_device *device = context->device;
	struct rnic_cq *cq;

	if (!ring->depth || ring->depth > device->settings[RNIC_SET_MAX_CQE])
		return EINVAL;
	if (device->cqs.count >= device->settings[RNIC_SET_MAX_CQ])
		return ENOMEM;
	cq = rnic_make(context, RNIC_CQ, sizeof(*cq));
	if (!cq)
		return ENOMEM;
	if (rnic_table_add(&device->cqs, &cq->object.link, rnic_number_take(&device->cqns, &device->cqs, true))) {
		rnic_unmake(RNIC_CQ, cq);
		return ENOMEM;
	}
	rnic_queue_init(&cq->queue, ring);
	cq->cookie = cookie;
	*handle = cq->object.handle;
	return 0;
}

int rnic_resize_cq(struct rnic_context *context, uint32_t handle, struct rnic_ring *ring)
{
	struct rnic_cq *cq = rnic_find(context, RNIC_CQ, handle);
	struct rnic_ring *old = cq ? cq->queue.ring : NULL;
	uint32_t first, count;

	if (!cq || !ring->depth || ring->depth > context->device->settings[RNIC_SET_MAX_CQE])
		return EINVAL;
	first = __atomic_load_n(&old->consumed, __ATOMIC_ACQUIRE);
	count = cq->queue.head - first;
	if (count > cq->queue.depth || count > ring->depth)
		return EINVAL;
	for (uint32_t i = 0; i < count; i++)
		memcpy(rnic_ring_at(ring, i), rnic_queue_at(&cq->queue, first + i), sizeof(struct rnic_completion));
	ring->armed = old->armed;
	rnic_queue_init(&cq->queue, ring);
	cq->queue.head = count;
	__atomic_store_n(&ring->produced, count, __ATOMIC_RELEASE);
	return 0;
}

void rnic_end_cq(struct rnic_cq *cq)
{
	struct rnic_device *device = cq->object.context->device;

	rnic_table_remove(&device->cqs, &cq->object.link);
	rnic_number_give(&device->cqns, cq->object.link.number);
	rnic_unmake(RNIC_CQ, cq);
}

int rnic_destroy_cq(struct rnic_context *context, uint32_t handle)
{
	struct rnic_cq *cq = rnic_find(context, RNIC_CQ, handle);

	if (!cq)
		return EINVAL;
	if (cq->object.users)
		return EBUSY;
	rnic_end_cq(cq);
	return 0;
}

/* As rxe_cq_post: what does not fit is lost, and the owner is told, once until there has been room again. */
static bool overflows(struct rnic_cq *cq)
{
	struct rnic_context *context = cq->object.context;
	uint32_t consumed = __atomic_load_n(&cq->queue.ring->consumed, __ATOMIC_ACQUIRE);

	if (cq->queue.head - consumed < cq->queue.depth) {
		cq->overflowed = false;
		return false;
	}
	context->device->counters[RNIC_OVERFLOWS]++;
	if (!cq->overflowed)
		context->sinks->async_event(context->process, IBV_EVENT_CQ_ERR, RNIC_CQ, cq->cookie);
	cq->overflowed = true;
	return true;
}

void rnic_complete(struct rnic_cq *cq, const struct rnic_completion *completion, bool solicited)
{
	struct rnic_context *context = cq->object.context;
	struct rnic_ring *ring = cq->queue.ring;
	uint32_t armed;

	if (completion->status != IBV_WC_SUCCESS)
		context->device->counters[RNIC_ERRORS]++;
	if (rnic_is_fault(context->device, RNIC_SET_DROP_COMPLETION) || overflows(cq))
		return;
	struct rnic_completion *slot = (struct rnic_completion *)(void *)(uintptr_t)rnic_queue_at(&cq->queue, cq->queue.head);
	*slot = *completion;
	slot->time = context->device->fabric->time;
	if (rnic_is_fault(context->device, RNIC_SET_SWAP_COMPLETIONS))
		slot->wr_id = ((const struct rnic_completion *)rnic_queue_at(&cq->queue, cq->queue.head - 1))->wr_id;
	cq->queue.head++;
	__atomic_store_n(&ring->produced, cq->queue.head, __ATOMIC_SEQ_CST);
	/* Sequentially consistent with the consumer, which arms and then polls once more. */
	armed = __atomic_load_n(&ring->armed, __ATOMIC_SEQ_CST);
	if (armed == RNIC_ARMED_ANY ||
	    (armed == RNIC_ARMED_SOLICITED && (solicited || completion->status != IBV_WC_SUCCESS))) {
		__atomic_store_n(&ring->armed, RNIC_ARMED_NOT, __ATOMIC_SEQ_CST);
		context->sinks->completion_event(context->process, cq->cookie);
	}
}
