/* Completion channels and asynchronous events. */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "export.h"
#include "soft.h"

EXPORT struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
	struct device_link *link = soft_link(context, "create_comp_channel");
	struct rnic_call call = { .name = CALL_CREATE_CHANNEL };
	struct soft_channel *channel = calloc(1, sizeof(*channel));
	void *queue = NULL;
	int error = channel ? 0 : ENOMEM;

	if (!error)
		error = device_link_alloc(link, sizeof(struct rnic_events), &queue, &call.channel.queue);
	if (!error && (channel->events.fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE)) < 0)
		error = errno;
	if (!error) {
		call.channel.fd = channel->events.fd;
		if ((error = device_link_call(link, &call)))
			close(channel->events.fd);
	}
	if (error) {
		device_link_free(link, queue);
		free(channel);
		errno = error;
		return NULL;
	}
	channel->events.queue = queue;
	pthread_mutex_init(&channel->events.lock, NULL);
	channel->handle = call.handle;
	channel->ibv.context = context;
	channel->ibv.fd = channel->events.fd;
	return &channel->ibv;
}

EXPORT int ibv_destroy_comp_channel(struct ibv_comp_channel *ibv)
{
	struct soft_channel *channel = (struct soft_channel *)ibv;
	int error = ibv->refcnt ? EBUSY
				: soft_end(ibv->context, CALL_DESTROY_CHANNEL, channel->handle, "destroy_comp_channel");

	if (error)
		return error;
	close(channel->events.fd);
	device_link_free(soft_context(ibv->context)->link, channel->events.queue);
	free(channel);
	return 0;
}

EXPORT int ibv_get_cq_event(struct ibv_comp_channel *ibv, struct ibv_cq **cq, void **cq_context)
{
	struct soft_channel *channel = (struct soft_channel *)ibv;
	struct rnic_event event;

	if (soft_events_take(&channel->events, soft_link(ibv->context, "get_cq_event"), &event))
		return -1;
	*cq = (struct ibv_cq *)(uintptr_t)event.cookie;
	*cq_context = (*cq)->cq_context;
	__atomic_add_fetch(&((struct soft_cq *)*cq)->events, 1, __ATOMIC_SEQ_CST);
	return 0;
}

EXPORT void ibv_ack_cq_events(struct ibv_cq *cq, unsigned int count)
{
	soft_link(cq->context, "ack_cq_events");
	pthread_mutex_lock(&cq->mutex);
	cq->comp_events_completed += count;
	pthread_cond_signal(&cq->cond);
	pthread_mutex_unlock(&cq->mutex);
}

EXPORT int ibv_get_async_event(struct ibv_context *ibv, struct ibv_async_event *event)
{
	struct soft_context *context = soft_context(ibv);
	struct rnic_event taken;

	if (soft_events_take(&context->async, soft_link(ibv, "get_async_event"), &taken))
		return -1;
	*event = (struct ibv_async_event){ .event_type = (enum ibv_event_type)taken.type };
	switch (taken.kind) {
	case RNIC_CQ:
		event->element.cq = (struct ibv_cq *)(uintptr_t)taken.cookie;
		__atomic_add_fetch(&((struct soft_cq *)event->element.cq)->async_events, 1, __ATOMIC_SEQ_CST);
		break;
	case RNIC_SRQ:
		event->element.srq = (struct ibv_srq *)(uintptr_t)taken.cookie;
		__atomic_add_fetch(&((struct soft_srq *)event->element.srq)->async_events, 1, __ATOMIC_SEQ_CST);
		break;
	case RNIC_QP:
		event->element.qp = (struct ibv_qp *)(uintptr_t)taken.cookie;
		__atomic_add_fetch(&((struct soft_qp *)event->element.qp)->async_events, 1, __ATOMIC_SEQ_CST);
		break;
	default:
		event->element.port_num = (int)taken.cookie;
		break;
	}
	return 0;
}

static void acknowledge(struct ibv_context *context, pthread_mutex_t *mutex, pthread_cond_t *cond, uint32_t *completed)
{
	soft_link(context, "ack_async_event");
	pthread_mutex_lock(mutex);
	++*completed;
	pthread_cond_signal(cond);
	pthread_mutex_unlock(mutex);
}

EXPORT void ibv_ack_async_event(struct ibv_async_event *event)
{
	switch (event->event_type) {
	case IBV_EVENT_CQ_ERR: {
		struct ibv_cq *cq = event->element.cq;

		acknowledge(cq->context, &cq->mutex, &cq->cond, &cq->async_events_completed);
		return;
	}
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_COMM_EST:
	case IBV_EVENT_SQ_DRAINED:
	case IBV_EVENT_PATH_MIG:
	case IBV_EVENT_PATH_MIG_ERR:
	case IBV_EVENT_QP_LAST_WQE_REACHED: {
		struct ibv_qp *qp = event->element.qp;

		acknowledge(qp->context, &qp->mutex, &qp->cond, &qp->events_completed);
		return;
	}
	case IBV_EVENT_SRQ_ERR:
	case IBV_EVENT_SRQ_LIMIT_REACHED: {
		struct ibv_srq *srq = event->element.srq;

		acknowledge(srq->context, &srq->mutex, &srq->cond, &srq->events_completed);
		return;
	}
	default:
		return;
	}
}
