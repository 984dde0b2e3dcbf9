/* Queue pairs: their making, their handles, their end. What they do is in state.c, request.c, respond.c, … */
#include "internal.h"

int rnic_qp_caps(const struct rnic_device *device, enum ibv_qp_type type, struct ibv_qp_cap *cap, uint32_t *sq_stride,
		 uint32_t *rq_stride)
{
	const uint64_t *settings = device->settings;

	if (cap->max_send_wr > settings[RNIC_SET_MAX_QP_WR] || cap->max_recv_wr > settings[RNIC_SET_MAX_QP_WR] ||
	    cap->max_send_sge > settings[RNIC_SET_MAX_SGE] || cap->max_recv_sge > settings[RNIC_SET_MAX_SGE] ||
	    cap->max_inline_data > settings[RNIC_SET_MAX_INLINE])
		return EINVAL;
	if (type == IBV_QPT_XRC_RECV)
		cap->max_send_wr = cap->max_send_sge = cap->max_inline_data = 0;
	if (type == IBV_QPT_XRC_RECV || type == IBV_QPT_XRC_SEND)
		cap->max_recv_wr = cap->max_recv_sge = 0;
	/* Where a stride has room, so has a request, as providers do. */
	*sq_stride = rnic_stride(sizeof(struct rnic_send), cap->max_send_sge, cap->max_inline_data);
	*rq_stride = rnic_stride(sizeof(struct rnic_receive), cap->max_recv_sge, 0);
	if (type != IBV_QPT_XRC_RECV && settings[RNIC_SET_MAX_INLINE] && cap->max_inline_data < *sq_stride - sizeof(struct rnic_send))
		cap->max_inline_data = (uint32_t)(*sq_stride - sizeof(struct rnic_send));
	if (cap->max_inline_data > settings[RNIC_SET_MAX_INLINE])
		cap->max_inline_data = (uint32_t)settings[RNIC_SET_MAX_INLINE];
	return 0;
}

struct rnic_qp *rnic_qp_find(const struct rnic_context *context, uint32_t handle)
{
	struct rnic_qp_ref *ref = rnic_find(context, RNIC_QP, handle);

	return ref ? ref->qp : NULL;
}

void rnic_qp_event(struct rnic_qp *qp, enum ibv_event_type type)
{
	for (struct rnic_node *node = qp->refs.next; node != &qp->refs; node = node->next) {
		struct rnic_qp_ref *ref = rnic_of(node, struct rnic_qp_ref, node);
		struct rnic_context *context = ref->object.context;

		context->sinks->async_event(context->process, type, RNIC_QP, ref->cookie);
	}
}

static int add_ref(struct rnic_context *context, struct rnic_qp *qp, uint64_t cookie, uint32_t *handle)
{
	struct rnic_qp_ref *ref = rnic_make(context, RNIC_QP, sizeof(*ref));

	if (!ref)
		return ENOMEM;
	ref->qp = qp;
	ref->cookie = cookie;
	rnic_list_add(&qp->refs, &ref->node);
	*handle = ref->object.handle;
	return 0;
}

static int check_init(const struct rnic_context *context, const struct rnic_qp_init *init)
{
	const struct rnic_device *device = context->device;
	bool target = init->type == IBV_QPT_XRC_RECV;

	switch (init->type) {
	case IBV_QPT_XRC_RECV:
	case IBV_QPT_XRC_SEND:
		if (!device->settings[RNIC_SET_MAX_XRCD])
			return EOPNOTSUPP;
		break;
	case IBV_QPT_RC:
	case IBV_QPT_UC:
	case IBV_QPT_UD:
		break;
	default:
		return EOPNOTSUPP;
	}
	if (target ? !rnic_find(context, RNIC_XRCD, init->xrcd) :
		     !rnic_find(context, RNIC_PD, init->pd) || !rnic_find(context, RNIC_CQ, init->send_cq))
		return EINVAL;
	if ((init->type == IBV_QPT_RC || init->type == IBV_QPT_UC || init->type == IBV_QPT_UD) &&
	    !rnic_find(context, RNIC_CQ, init->recv_cq))
		return EINVAL;
	if (init->srq != RNIC_NONE) {
		const struct rnic_srq *srq = rnic_find(context, RNIC_SRQ, init->srq);

		if (!srq || srq->type != IBV_SRQT_BASIC || target || init->type == IBV_QPT_XRC_SEND)
			return EINVAL;
	}
	if (init->cap.max_send_sge > RNIC_MAX_SGE || init->cap.max_recv_sge > RNIC_MAX_SGE ||
	    init->cap.max_inline_data > RNIC_MAX_INLINE)
		return EINVAL;
	return device->qps.count >= device->settings[RNIC_SET_MAX_QP] ? ENOMEM : 0;
}

static int count_users(struct rnic_qp *qp, int by)
{
	struct rnic_object *used[] = { (struct rnic_object *)qp->pd, (struct rnic_object *)qp->send_cq,
				       (struct rnic_object *)qp->recv_cq, (struct rnic_object *)qp->srq };

	for (size_t i = 0; i < sizeof(used) / sizeof(used[0]); i++)
		if (used[i])
			used[i]->users += (uint32_t)by;
	return 0;
}

static void free_qp(struct rnic_qp *qp)
{
	if (!qp)
		return;
	free(qp->req.sent);
	free(qp->req.request);
	free(qp->resp.taken);
	free(qp->resp.replies);
	free(qp);
}

static struct rnic_qp *new_qp(struct rnic_context *context, const struct rnic_qp_init *init)
{
	struct rnic_qp *qp = calloc(1, sizeof(*qp));

	if (!qp)
		return NULL;
	qp->device = context->device;
	qp->type = init->type;
	qp->cap = init->cap;
	qp->sq_sig_all = init->sq_sig_all;
	rnic_list_init(&qp->refs);
	rnic_list_init(&qp->groups);
	if (qp->type != IBV_QPT_XRC_RECV) {
		rnic_queue_init(&qp->req.queue, init->sq);
		qp->req.sent = calloc(init->sq ? init->sq->slots : 1, sizeof(*qp->req.sent));
		qp->req.request = malloc(sizeof(*qp->req.request));
		qp->pd = rnic_find(context, RNIC_PD, init->pd);
		qp->send_cq = rnic_find(context, RNIC_CQ, init->send_cq);
	}
	if (qp->type != IBV_QPT_XRC_SEND) {
		rnic_queue_init(&qp->resp.queue, init->srq == RNIC_NONE && qp->type != IBV_QPT_XRC_RECV ? init->rq : NULL);
		qp->resp.taken = calloc(1, sizeof(*qp->resp.taken));
		qp->recv_cq = rnic_find(context, RNIC_CQ, init->recv_cq);
		qp->srq = rnic_find(context, RNIC_SRQ, init->srq);
	}
	qp->req.retry_event.fire = rnic_retry_fired;
	qp->req.wait_event.fire = rnic_wait_fired;
	if ((qp->type != IBV_QPT_XRC_RECV && (!qp->req.sent || !qp->req.request)) ||
	    (qp->type != IBV_QPT_XRC_SEND && !qp->resp.taken)) {
		free_qp(qp);
		return NULL;
	}
	return qp;
}

int rnic_create_qp(struct rnic_context *context, const struct rnic_qp_init *init, uint32_t *handle, uint32_t *qpn)
{
	struct rnic_device *device = context->device;
	int error = check_init(context, init);
	struct rnic_qp *qp;

	if (error)
		return error;
	qp = new_qp(context, init);
	if (!qp)
		return ENOMEM;
	*qpn = rnic_number_take(&device->qpns, &device->qps, device->settings[RNIC_SET_REUSE_NUMBERS]);
	error = rnic_table_add(&device->qps, &qp->link, *qpn);
	if (error) {
		free_qp(qp);
		return error;
	}
	error = add_ref(context, qp, init->cookie, handle);
	if (error) {
		rnic_table_remove(&device->qps, &qp->link);
		free_qp(qp);
		return error;
	}
	if (qp->type == IBV_QPT_XRC_RECV) {
		qp->domain = ((struct rnic_xrcd *)rnic_find(context, RNIC_XRCD, init->xrcd))->domain;
		qp->domain->users++;
	}
	return count_users(qp, 1);
}

int rnic_open_qp(struct rnic_context *context, uint32_t xrcd_handle, uint32_t qpn, uint64_t cookie, uint32_t *handle)
{
	struct rnic_xrcd *xrcd = rnic_find(context, RNIC_XRCD, xrcd_handle);
	struct rnic_link *link = rnic_table_find(&context->device->qps, qpn);
	struct rnic_qp *qp = link ? rnic_of(link, struct rnic_qp, link) : NULL;

	if (!xrcd || !qp || qp->domain != xrcd->domain)
		return EINVAL;
	return add_ref(context, qp, cookie, handle);
}

static void end_qp(struct rnic_qp *qp)
{
	struct rnic_device *device = qp->device;

	rnic_to_reset(qp);
	rnic_leave_groups(qp);
	count_users(qp, -1);
	if (qp->domain && --qp->domain->users == 0) {
		rnic_list_remove(&qp->domain->node);
		free(qp->domain);
	}
	rnic_table_remove(&device->qps, &qp->link);
	rnic_number_give(&device->qpns, rnic_qpn(qp));
	free_qp(qp);
}

/* A target that several processes have opened lives as long as the last of their handles. */
void rnic_end_qp_ref(struct rnic_qp_ref *ref)
{
	struct rnic_qp *qp = ref->qp;

	rnic_list_remove(&ref->node);
	rnic_unmake(RNIC_QP, ref);
	if (rnic_list_empty(&qp->refs))
		end_qp(qp);
}

int rnic_destroy_qp(struct rnic_context *context, uint32_t handle)
{
	struct rnic_qp_ref *ref = rnic_find(context, RNIC_QP, handle);

	if (!ref)
		return EINVAL;
	if (!rnic_list_empty(&ref->qp->groups))
		return EBUSY;
	rnic_end_qp_ref(ref);
	return 0;
}

int rnic_may_send(struct rnic_context *context, uint32_t handle)
{
	struct rnic_qp *qp = rnic_qp_find(context, handle);

	return !qp || qp->type == IBV_QPT_XRC_RECV || qp->state < IBV_QPS_RTS ? EINVAL : 0;
}

int rnic_may_receive(struct rnic_context *context, uint32_t handle)
{
	struct rnic_qp *qp = rnic_qp_find(context, handle);

	return !qp || !qp->resp.queue.ring || qp->state == IBV_QPS_RESET ? EINVAL : 0;
}

int rnic_doorbell(struct rnic_context *context, uint32_t handle)
{
	struct rnic_qp *qp = rnic_qp_find(context, handle);

	if (!qp)
		return EINVAL;
	if (qp->state == IBV_QPS_ERR || qp->state == IBV_QPS_SQE)
		rnic_flush(qp);
	else if (qp->state == IBV_QPS_RTS)
		rnic_runnable(qp);
	rnic_feed(qp);
	return 0;
}
