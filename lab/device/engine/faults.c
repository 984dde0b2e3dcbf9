/* Calls that are made to fail, to take their time or never to end, and events on request. */
#include "internal.h"

int rnic_fault(struct rnic_device *device, const char *call, uint32_t nth, int error, uint64_t delay)
{
	struct rnic_fault_point **at = &device->faults;

	while (*at && strcmp((*at)->call, call))
		at = &(*at)->next;
	if (!*at) {
		*at = calloc(1, sizeof(**at) + strlen(call) + 1);
		if (!*at)
			return ENOMEM;
		strcpy((*at)->call, call);
	}
	if (!error && !delay) {
		struct rnic_fault_point *done = *at;

		*at = done->next;
		free(done);
		return 0;
	}
	(*at)->nth = nth;
	(*at)->error = error;
	(*at)->delay = delay;
	return 0;
}

int rnic_verdict(struct rnic_device *device, const char *call, uint64_t *delay)
{
	struct rnic_fault_point **at = &device->faults, *fault;
	int error;

	if (delay)
		*delay = 0;
	while (*at && strcmp((*at)->call, call))
		at = &(*at)->next;
	fault = *at;
	if (!fault || fault->nth > 1) {
		if (fault)
			fault->nth--;
		return 0;
	}
	if (delay)
		*delay = fault->delay;
	error = fault->error;
	if (fault->nth) {
		*at = fault->next;
		free(fault);
	}
	return error;
}

static struct rnic_qp *first_qp(struct rnic_device *device, uint32_t number)
{
	struct rnic_link *link = rnic_table_find(&device->qps, number);

	return link ? rnic_of(link, struct rnic_qp, link) : NULL;
}

int rnic_raise(struct rnic_device *device, enum ibv_event_type type, uint32_t number)
{
	struct rnic_qp *qp;
	struct rnic_link *link;

	switch (type) {
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_COMM_EST:
	case IBV_EVENT_SQ_DRAINED:
	case IBV_EVENT_PATH_MIG:
	case IBV_EVENT_PATH_MIG_ERR:
	case IBV_EVENT_QP_LAST_WQE_REACHED:
		qp = first_qp(device, number);
		if (!qp)
			return ENOENT;
		rnic_qp_event(qp, type);
		return 0;
	case IBV_EVENT_CQ_ERR:
		qp = first_qp(device, number);
		if (!qp || !qp->send_cq)
			return ENOENT;
		qp->send_cq->object.context->sinks->async_event(qp->send_cq->object.context->process, type, RNIC_CQ,
								qp->send_cq->cookie);
		return 0;
	case IBV_EVENT_SRQ_ERR:
	case IBV_EVENT_SRQ_LIMIT_REACHED: {
		link = rnic_table_find(&device->srqs, number);
		if (!link)
			return ENOENT;
		struct rnic_srq *srq = rnic_of(link, struct rnic_srq, object.link);
		srq->object.context->sinks->async_event(srq->object.context->process, type, RNIC_SRQ, srq->cookie);
		return 0;
	}
	default:
		for (struct rnic_node *node = device->contexts.next; node != &device->contexts; node = node->next) {
			struct rnic_context *context = rnic_of(node, struct rnic_context, node);

			context->sinks->async_event(context->process, type, RNIC_KINDS,
						    type == IBV_EVENT_DEVICE_FATAL ? 0 : 1);
		}
		return 0;
	}
}
