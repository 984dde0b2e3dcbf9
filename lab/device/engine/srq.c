/* Shared receive queues. */
#include "internal.h"

int rnic_create_srq(struct rnic_context *context, const struct rnic_srq_init *init, uint32_t *handle, uint32_t *srqn)
{
	struct rnic_device *device = context->device;
	struct rnic_pd *pd = rnic_find(context, RNIC_PD, init->pd);
	struct rnic_xrcd *xrcd = init->type == IBV_SRQT_XRC ? rnic_find(context, RNIC_XRCD, init->xrcd) : NULL;
	struct rnic_cq *cq = init->type == IBV_SRQT_XRC ? rnic_find(context, RNIC_CQ, init->cq) : NULL;
	struct rnic_srq *srq;

	if (!device->settings[RNIC_SET_MAX_SRQ] || (init->type != IBV_SRQT_BASIC && init->type != IBV_SRQT_XRC))
		return EOPNOTSUPP;
	if (!pd || !init->max_wr || init->max_wr > device->settings[RNIC_SET_MAX_SRQ_WR] ||
	    init->max_sge > device->settings[RNIC_SET_MAX_SGE] || init->limit > init->max_wr ||
	    (init->type == IBV_SRQT_XRC && (!xrcd || !cq)))
		return EINVAL;
	if (device->srqs.count >= device->settings[RNIC_SET_MAX_SRQ])
		return ENOMEM;
	srq = rnic_make(context, RNIC_SRQ, sizeof(*srq));
	if (!srq)
		return ENOMEM;
	uint32_t number = rnic_number_take(&device->srqns, &device->srqs, device->settings[RNIC_SET_REUSE_NUMBERS]);
	if (rnic_table_add(&device->srqs, &srq->object.link, number)) {
		rnic_unmake(RNIC_SRQ, srq);
		return ENOMEM;
	}
	srq->pd = pd;
	srq->type = init->type;
	srq->max_sge = init->max_sge;
	srq->limit = init->limit;
	srq->cookie = init->cookie;
	rnic_queue_init(&srq->queue, init->ring);
	rnic_list_init(&srq->starving);
	pd->object.users++;
	if (xrcd) {
		srq->domain = xrcd->domain;
		srq->domain->users++;
		srq->cq = cq;
		cq->object.users++;
	}
	*handle = srq->object.handle;
	*srqn = number;
	return 0;
}

int rnic_modify_srq(struct rnic_context *context, uint32_t handle, const uint32_t *limit, struct rnic_ring *ring)
{
	struct rnic_srq *srq = rnic_find(context, RNIC_SRQ, handle);

	if (!srq || (limit && *limit > (ring ? ring->depth : srq->queue.depth)))
		return EINVAL;
	if (ring) {
		uint32_t first = srq->queue.head;
		uint32_t count = rnic_queue_produced(&srq->queue) - first;

		if (ring->depth < count || ring->depth > context->device->settings[RNIC_SET_MAX_SRQ_WR] ||
		    ring->stride < srq->queue.stride)
			return EINVAL;
		for (uint32_t i = 0; i < count; i++)
			memcpy(rnic_ring_at(ring, i), rnic_queue_at(&srq->queue, first + i), srq->queue.stride);
		rnic_queue_init(&srq->queue, ring);
		__atomic_store_n(&ring->produced, count, __ATOMIC_RELEASE);
	}
	if (limit)
		srq->limit = *limit;
	return 0;
}

int rnic_query_srq(struct rnic_context *context, uint32_t handle, struct ibv_srq_attr *attr)
{
	struct rnic_srq *srq = rnic_find(context, RNIC_SRQ, handle);

	if (!srq)
		return EINVAL;
	*attr = (struct ibv_srq_attr){ .max_wr = srq->queue.depth, .max_sge = srq->max_sge, .srq_limit = srq->limit };
	return 0;
}

void rnic_end_srq(struct rnic_srq *srq)
{
	struct rnic_device *device = srq->object.context->device;

	while (!rnic_list_empty(&srq->starving))
		rnic_list_remove(srq->starving.next);
	srq->pd->object.users--;
	if (srq->domain) {
		if (--srq->domain->users == 0) {
			rnic_list_remove(&srq->domain->node);
			free(srq->domain);
		}
		srq->cq->object.users--;
	}
	rnic_table_remove(&device->srqs, &srq->object.link);
	rnic_number_give(&device->srqns, srq->object.link.number);
	rnic_unmake(RNIC_SRQ, srq);
}

int rnic_destroy_srq(struct rnic_context *context, uint32_t handle)
{
	struct rnic_srq *srq = rnic_find(context, RNIC_SRQ, handle);

	if (!srq)
		return EINVAL;
	if (srq->object.users)
		return EBUSY;
	rnic_end_srq(srq);
	return 0;
}

int rnic_srq_doorbell(struct rnic_context *context, uint32_t handle)
{
	struct rnic_srq *srq = rnic_find(context, RNIC_SRQ, handle);

	if (!srq)
		return EINVAL;
	while (!rnic_list_empty(&srq->starving)) {
		struct rnic_qp *qp = rnic_of(srq->starving.next, struct rnic_qp, starves);

		rnic_list_remove(&qp->starves);
		rnic_feed(qp);
	}
	return 0;
}

bool rnic_srq_take(struct rnic_srq *srq, struct rnic_taken *taken)
{
	struct rnic_context *context = srq->object.context;

	if (rnic_is_fault(context->device, RNIC_SET_LOSE_RECEIVE) &&
	    rnic_queue_receive(&srq->queue, srq->queue.head, srq->max_sge, taken))
		rnic_queue_consume(&srq->queue, srq->queue.head + 1);
	if (!rnic_queue_receive(&srq->queue, srq->queue.head, srq->max_sge, taken))
		return false;
	rnic_queue_consume(&srq->queue, srq->queue.head + 1);
	if (srq->limit && rnic_queue_produced(&srq->queue) - srq->queue.head < srq->limit) {
		/* Armed again only by the application. */
		srq->limit = 0;
		context->sinks->async_event(context->process, IBV_EVENT_SRQ_LIMIT_REACHED, RNIC_SRQ, srq->cookie);
	}
	return true;
}
