/* Shared receive queues, and posting receives to either kind of queue. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "export.h"
#include "soft.h"

static struct rnic_ring *new_ring(struct device_link *link, uint32_t depth, uint32_t sges, rnic_reference *reference)
{
	uint32_t stride = rnic_stride(sizeof(struct rnic_receive), sges, 0);
	void *memory;
	int error = device_link_alloc(link, rnic_ring_size(depth, stride), &memory, reference);

	if (error) {
		errno = error;
		return NULL;
	}
	rnic_ring_init(memory, depth, stride);
	return memory;
}

static struct ibv_srq *create(struct ibv_context *context, struct ibv_srq_init_attr_ex *attr)
{
	bool is_xrc = attr->comp_mask & IBV_SRQ_INIT_ATTR_TYPE && attr->srq_type == IBV_SRQT_XRC;
	struct rnic_call call = { .name = CALL_CREATE_SRQ };
	struct device_link *link = soft_link(context, "create_srq");
	struct rnic_call limits = { .name = CALL_QUERY_DEVICE };
	struct soft_srq *srq = calloc(1, sizeof(*srq));
	int error = srq ? device_link_call(link, &limits) : ENOMEM;

	if (!error && !limits.device_attr.max_srq)
		error = EOPNOTSUPP;
	if (!error && (!attr->attr.max_wr || attr->attr.max_wr > (uint32_t)limits.device_attr.max_srq_wr ||
		       attr->attr.max_sge > (uint32_t)limits.device_attr.max_srq_sge || attr->attr.max_sge > RNIC_MAX_SGE))
		error = EINVAL;
	if (!error && !(srq->ring = new_ring(link, attr->attr.max_wr, attr->attr.max_sge, &call.srq.ring)))
		error = errno;
	if (!error) {
		call.srq.pd = attr->pd->handle;
		call.srq.type = is_xrc ? IBV_SRQT_XRC : IBV_SRQT_BASIC;
		call.srq.xrcd = is_xrc && attr->xrcd ? ((struct soft_xrcd *)attr->xrcd)->handle : RNIC_NONE;
		call.srq.cq = is_xrc && attr->cq ? attr->cq->handle : RNIC_NONE;
		call.srq.max_wr = attr->attr.max_wr;
		call.srq.max_sge = attr->attr.max_sge;
		call.srq.limit = attr->attr.srq_limit;
		call.srq.cookie = (uintptr_t)srq;
		error = device_link_call(link, &call);
		if (error)
			device_link_free(link, srq->ring);
	}
	if (error) {
		free(srq);
		errno = error;
		return NULL;
	}
	srq->ibv.context = context;
	srq->ibv.srq_context = attr->srq_context;
	srq->ibv.pd = attr->pd;
	srq->ibv.handle = call.handle;
	srq->max_sge = attr->attr.max_sge;
	srq->number = call.number;
	pthread_mutex_init(&srq->ibv.mutex, NULL);
	pthread_cond_init(&srq->ibv.cond, NULL);
	pthread_mutex_init(&srq->lock, NULL);
	return &srq->ibv;
}

EXPORT struct ibv_srq *ibv_create_srq(struct ibv_pd *pd, struct ibv_srq_init_attr *attr)
{
	struct ibv_srq_init_attr_ex extended = { .srq_context = attr->srq_context, .attr = attr->attr, .pd = pd,
						 .comp_mask = IBV_SRQ_INIT_ATTR_PD };

	return create(pd->context, &extended);
}

static struct ibv_srq *create_srq_ex(struct ibv_context *context, struct ibv_srq_init_attr_ex *attr)
{
	const uint32_t known = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD | IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ;

	if (attr->comp_mask & ~known || !(attr->comp_mask & IBV_SRQ_INIT_ATTR_PD)) {
		errno = EINVAL;
		return NULL;
	}
	return create(context, attr);
}

EXPORT int ibv_modify_srq(struct ibv_srq *ibv, struct ibv_srq_attr *attr, int mask)
{
	struct soft_srq *srq = (struct soft_srq *)ibv;
	struct device_link *link = soft_link(ibv->context, "modify_srq");
	struct rnic_call call = { .name = CALL_MODIFY_SRQ, .handle = ibv->handle };
	struct rnic_ring *ring = NULL, *before = NULL;

	if (mask & ~(IBV_SRQ_MAX_WR | IBV_SRQ_LIMIT))
		return EINVAL;
	if (mask & IBV_SRQ_MAX_WR && !(ring = new_ring(link, attr->max_wr, srq->max_sge, &call.srq.ring)))
		return errno;
	call.srq.sets_limit = mask & IBV_SRQ_LIMIT ? 1 : 0;
	call.srq.limit = attr->srq_limit;
	pthread_mutex_lock(&srq->lock);
	int error = device_link_call(link, &call);
	if (ring) {
		before = error ? ring : srq->ring;
		if (!error)
			srq->ring = ring;
	}
	pthread_mutex_unlock(&srq->lock);
	device_link_free(link, before);
	return error;
}

EXPORT int ibv_query_srq(struct ibv_srq *srq, struct ibv_srq_attr *attr)
{
	struct rnic_call call = { .name = CALL_QUERY_SRQ, .handle = srq->handle };
	int error = device_link_call(soft_link(srq->context, "query_srq"), &call);

	if (!error)
		*attr = call.srq_attr;
	return error;
}

static void await_events(struct soft_srq *srq)
{
	struct ibv_srq *ibv = &srq->ibv;

	soft_events_forget(&soft_context(ibv->context)->async, RNIC_SRQ, (uintptr_t)srq);
	pthread_mutex_lock(&ibv->mutex);
	while (ibv->events_completed != __atomic_load_n(&srq->async_events, __ATOMIC_SEQ_CST))
		pthread_cond_wait(&ibv->cond, &ibv->mutex);
	pthread_mutex_unlock(&ibv->mutex);
}

EXPORT int ibv_destroy_srq(struct ibv_srq *ibv)
{
	struct soft_srq *srq = (struct soft_srq *)ibv;
	int error = soft_end(ibv->context, CALL_DESTROY_SRQ, ibv->handle, "destroy_srq");

	if (error)
		return error;
	if (!soft_is_gone(ibv->context))
		await_events(srq);
	device_link_free(soft_context(ibv->context)->link, srq->ring);
	free(srq);
	return 0;
}

static int get_srq_num(struct ibv_srq *srq, uint32_t *number)
{
	soft_link(srq->context, "get_srq_num");
	*number = ((struct soft_srq *)srq)->number;
	return 0;
}

/* Puts the list into the ring until something is wrong with one; how many went in. Must hold the queue's lock. */
static uint32_t fill(struct rnic_ring *ring, uint32_t max_sge, struct ibv_recv_wr **wr, int *error)
{
	uint32_t filled = 0;

	*error = 0;
	for (; *wr; *wr = (*wr)->next) {
		struct rnic_receive *slot;

		if ((*wr)->num_sge < 0 || (uint32_t)(*wr)->num_sge > max_sge) {
			*error = EINVAL;
			break;
		}
		if (!(slot = rnic_ring_free(ring, filled))) {
			*error = ENOMEM;
			break;
		}
		slot->wr_id = (*wr)->wr_id;
		slot->num_sge = (uint32_t)(*wr)->num_sge;
		for (int i = 0; i < (*wr)->num_sge; i++)
			slot->sges[i] = (struct rnic_sge){ (*wr)->sg_list[i].addr, (*wr)->sg_list[i].length,
							   (*wr)->sg_list[i].lkey };
		filled++;
	}
	rnic_ring_give(ring, filled);
	return filled;
}

static int post(struct device_link *link, struct rnic_ring *ring, uint32_t max_sge, uint32_t handle, bool is_srq,
		struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	int error;

	if (fill(ring, max_sge, &wr, &error))
		device_link_doorbell(link, handle, is_srq);
	/* A device does not wait for the end of a list: what it has taken from the front may have made room. */
	while (error == ENOMEM && fill(ring, max_sge, &wr, &error))
		device_link_doorbell(link, handle, is_srq);
	if (error)
		*bad = wr;
	return error;
}

static int post_srq_recv(struct ibv_srq *ibv, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct soft_srq *srq = (struct soft_srq *)ibv;
	struct device_link *link = soft_link(ibv->context, "post_srq_recv");
	int error = soft_fault(link, "post_srq_recv");

	if (error) {
		*bad = wr;
		return error;
	}
	pthread_mutex_lock(&srq->lock);
	error = post(link, srq->ring, srq->max_sge, ibv->handle, true, wr, bad);
	pthread_mutex_unlock(&srq->lock);
	return error;
}

static int post_recv(struct ibv_qp *ibv, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct soft_qp *qp = (struct soft_qp *)ibv;
	struct device_link *link = soft_link(ibv->context, "post_recv");
	int error = soft_fault(link, "post_recv");

	if (!error && (ibv->state == IBV_QPS_RESET || !qp->rq))
		error = EINVAL;
	if (error) {
		*bad = wr;
		return error;
	}
	pthread_mutex_lock(&qp->recv_lock);
	error = post(link, qp->rq, qp->init.cap.max_recv_sge, ibv->handle, false, wr, bad);
	pthread_mutex_unlock(&qp->recv_lock);
	return error;
}

void soft_fill_srq(struct verbs_context *verbs)
{
	verbs->context.ops.post_srq_recv = post_srq_recv;
	verbs->context.ops.post_recv = post_recv;
	verbs->create_srq_ex = create_srq_ex;
	verbs->get_srq_num = get_srq_num;
}
