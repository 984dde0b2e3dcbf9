/* Queue pairs, but for what is posted to them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "export.h"
#include "soft.h"

static uint32_t handle_of(const struct ibv_cq *cq)
{
	return cq ? cq->handle : RNIC_NONE;
}

static int new_ring(struct device_link *link, uint32_t depth, uint32_t stride, struct rnic_ring **ring, rnic_reference *at)
{
	void *memory;
	int error = depth ? device_link_alloc(link, rnic_ring_size(depth, stride), &memory, at) : 0;

	if (!depth || error)
		return error;
	rnic_ring_init(memory, depth, stride);
	*ring = memory;
	return 0;
}

/* What the device grants, and rings for it. XRC targets and users of an SRQ have no receive queue. */
static int make_rings(struct device_link *link, struct soft_qp *qp, struct rnic_call *create)
{
	struct rnic_call caps = { .name = CALL_QP_CAPS };
	bool sends = qp->init.qp_type != IBV_QPT_XRC_RECV;
	bool receives = !qp->init.srq && qp->init.qp_type != IBV_QPT_XRC_RECV && qp->init.qp_type != IBV_QPT_XRC_SEND;

	caps.caps.cap = qp->init.cap;
	caps.caps.type = qp->init.qp_type;
	int error = device_link_call(link, &caps);
	if (error)
		return error;
	qp->init.cap = caps.caps.cap;
	if (!receives)
		qp->init.cap.max_recv_wr = qp->init.cap.max_recv_sge = 0;
	if (sends)
		error = new_ring(link, qp->init.cap.max_send_wr, caps.caps.sq_stride, &qp->sq, &create->qp.sq);
	if (!error && receives)
		error = new_ring(link, qp->init.cap.max_recv_wr, caps.caps.rq_stride, &qp->rq, &create->qp.rq);
	return error;
}

static int check(struct ibv_context *context, const struct ibv_qp_init_attr *attr, const struct ibv_pd *pd)
{
	const struct ibv_cq *queues[2] = { attr->send_cq, attr->recv_cq };

	/* What another device's objects are good for is nobody's to try. */
	for (int i = 0; i < 2; i++)
		if (queues[i] && queues[i]->context != context)
			abort();
	if (attr->qp_type == IBV_QPT_XRC_RECV)
		return 0;
	if (!pd || !attr->send_cq || (attr->qp_type != IBV_QPT_XRC_SEND && !attr->recv_cq))
		return EINVAL;
	return 0;
}

static struct ibv_qp *create(struct ibv_context *context, struct ibv_qp_init_attr *attr, struct ibv_pd *pd,
			     struct ibv_xrcd *xrcd, uint64_t send_ops, bool is_extended)
{
	struct device_link *link = soft_link(context, "create_qp");
	struct rnic_call call = { .name = CALL_CREATE_QP };
	struct soft_qp *qp = calloc(1, sizeof(*qp));
	int error = qp ? check(context, attr, pd) : ENOMEM;

	if (!error) {
		qp->init = *attr;
		error = make_rings(link, qp, &call);
	}
	if (!error && is_extended)
		error = soft_fill_qp_ex(qp, send_ops);
	if (!error)
		error = soft_own(&qp->owned, pd);
	if (!error) {
		call.qp.cap = qp->init.cap;
		call.qp.cookie = (uintptr_t)qp;
		call.qp.type = attr->qp_type;
		call.qp.pd = pd ? pd->handle : RNIC_NONE;
		call.qp.send_cq = handle_of(attr->send_cq);
		call.qp.recv_cq = handle_of(attr->recv_cq);
		call.qp.srq = attr->srq ? attr->srq->handle : RNIC_NONE;
		call.qp.xrcd = xrcd ? ((struct soft_xrcd *)xrcd)->handle : RNIC_NONE;
		call.qp.sq_sig_all = attr->sq_sig_all ? 1 : 0;
		error = device_link_call(link, &call);
	}
	if (error) {
		if (qp) {
			soft_disown(&qp->owned);
			device_link_free(link, qp->sq);
			device_link_free(link, qp->rq);
		}
		free(qp);
		errno = error;
		return NULL;
	}
	attr->cap = qp->init.cap;
	qp->ibv.context = context;
	qp->ibv.qp_context = attr->qp_context;
	qp->ibv.pd = pd;
	qp->ibv.send_cq = attr->send_cq;
	qp->ibv.recv_cq = attr->recv_cq;
	qp->ibv.srq = attr->srq;
	qp->ibv.handle = call.handle;
	qp->ibv.qp_num = call.number;
	qp->ibv.state = IBV_QPS_RESET;
	qp->ibv.qp_type = attr->qp_type;
	pthread_mutex_init(&qp->ibv.mutex, NULL);
	pthread_cond_init(&qp->ibv.cond, NULL);
	pthread_mutex_init(&qp->send_lock, NULL);
	pthread_mutex_init(&qp->recv_lock, NULL);
	return &qp->ibv;
}

EXPORT struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
	return create(pd->context, attr, pd, NULL, 0, false);
}

static struct ibv_qp *create_qp_ex(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr)
{
	const uint32_t known = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_XRCD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
	struct ibv_qp_init_attr plain = { attr->qp_context, attr->send_cq, attr->recv_cq,	attr->srq,
					  attr->cap,	    attr->qp_type, attr->sq_sig_all };
	struct ibv_pd *pd = attr->comp_mask & IBV_QP_INIT_ATTR_PD ? attr->pd : NULL;
	bool is_extended = attr->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;

	if (pd && pd->context != context) {
		errno = EINVAL;
		return NULL;
	}
	if (attr->comp_mask & ~known) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	struct ibv_qp *qp = create(context, &plain, pd, attr->comp_mask & IBV_QP_INIT_ATTR_XRCD ? attr->xrcd : NULL,
				   attr->send_ops_flags, is_extended);
	attr->cap = plain.cap;
	return qp;
}

/* The target of an XRC connection that another process has made. */
static struct ibv_qp *open_qp(struct ibv_context *context, struct ibv_qp_open_attr *attr)
{
	const uint32_t needed = IBV_QP_OPEN_ATTR_NUM | IBV_QP_OPEN_ATTR_XRCD | IBV_QP_OPEN_ATTR_TYPE;
	struct device_link *link = soft_link(context, "open_qp");
	struct rnic_call call = { .name = CALL_OPEN_QP };
	struct soft_qp *qp = calloc(1, sizeof(*qp));
	int error = qp ? 0 : ENOMEM;

	if (!error && ((attr->comp_mask & needed) != needed || attr->qp_type != IBV_QPT_XRC_RECV))
		error = EINVAL;
	if (!error) {
		call.open_qp.cookie = (uintptr_t)qp;
		call.open_qp.xrcd = ((struct soft_xrcd *)attr->xrcd)->handle;
		call.open_qp.qpn = attr->qp_num;
		error = device_link_call(link, &call);
	}
	if (error) {
		free(qp);
		errno = error;
		return NULL;
	}
	qp->init.qp_type = attr->qp_type;
	qp->ibv.context = context;
	qp->ibv.qp_context = attr->comp_mask & IBV_QP_OPEN_ATTR_CONTEXT ? attr->qp_context : NULL;
	qp->ibv.handle = call.handle;
	qp->ibv.qp_num = attr->qp_num;
	qp->ibv.qp_type = attr->qp_type;
	pthread_mutex_init(&qp->ibv.mutex, NULL);
	pthread_cond_init(&qp->ibv.cond, NULL);
	pthread_mutex_init(&qp->send_lock, NULL);
	pthread_mutex_init(&qp->recv_lock, NULL);
	return &qp->ibv;
}

/* The kernel's uverbs drops what means nothing to one half of an XRC connection (modify_qp_mask), before anybody checks it. */
static int meant(enum ibv_qp_type type, int mask)
{
	switch (type) {
	case IBV_QPT_XRC_SEND:
		return mask & ~(IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
	case IBV_QPT_XRC_RECV:
		return mask & ~(IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY);
	default:
		return mask;
	}
}

EXPORT int ibv_modify_qp(struct ibv_qp *ibv, struct ibv_qp_attr *attr, int mask)
{
	struct rnic_call call = { .name = CALL_MODIFY_QP, .handle = ibv->handle };
	struct device_link *link = soft_link(ibv->context, "modify_qp");

	call.qp_attr.attr = *attr;
	call.qp_attr.mask = meant(ibv->qp_type, mask);
	int error = device_link_call(link, &call);
	if (error)
		return error;
	if (mask & IBV_QP_STATE) {
		ibv->state = attr->qp_state;
		if (attr->qp_state == IBV_QPS_RESET)
			soft_purge((struct soft_qp *)ibv);
	}
	return 0;
}

EXPORT int ibv_query_qp(struct ibv_qp *ibv, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init)
{
	struct soft_qp *qp = (struct soft_qp *)ibv;
	struct rnic_call call = { .name = CALL_QUERY_QP, .handle = ibv->handle };
	int error = device_link_call(soft_link(ibv->context, "query_qp"), &call);

	if (error)
		return error;
	*attr = call.qp_attr.attr;
	attr->cap = qp->init.cap;
	/* As libibverbs; beside that the mask is a hint of what is needed at least. */
	if (mask & IBV_QP_STATE)
		ibv->state = attr->qp_state;
	*init = qp->init;
	init->qp_context = ibv->qp_context;
	return 0;
}

/* What is not read yet is dropped; whoever has read one uses this queue pair until it has acknowledged it. */
static void await_events(struct soft_context *context, struct soft_qp *qp)
{
	struct ibv_qp *ibv = &qp->ibv;

	soft_events_forget(&context->async, RNIC_QP, (uintptr_t)qp);
	pthread_mutex_lock(&ibv->mutex);
	while (ibv->events_completed != __atomic_load_n(&qp->async_events, __ATOMIC_SEQ_CST))
		pthread_cond_wait(&ibv->cond, &ibv->mutex);
	pthread_mutex_unlock(&ibv->mutex);
}

EXPORT int ibv_destroy_qp(struct ibv_qp *ibv)
{
	struct soft_qp *qp = (struct soft_qp *)ibv;
	struct soft_context *context = soft_context(ibv->context);
	int error = soft_end(ibv->context, CALL_DESTROY_QP, ibv->handle, "destroy_qp");

	if (error)
		return error;
	soft_purge(qp);
	if (!soft_is_gone(ibv->context))
		await_events(context, qp);
	device_link_free(context->link, qp->sq);
	device_link_free(context->link, qp->rq);
	soft_disown(&qp->owned);
	free(qp);
	return 0;
}

EXPORT struct ibv_qp_ex *ibv_qp_to_qp_ex(struct ibv_qp *ibv)
{
	struct soft_qp *qp = (struct soft_qp *)ibv;

	return qp->is_extended ? &qp->ex : NULL;
}

static int multicast(struct ibv_qp *qp, uint32_t name, const union ibv_gid *gid, uint16_t lid, const char *function)
{
	struct rnic_call call = { .name = name, .handle = qp->handle };

	memcpy(call.mcast.gid, gid->raw, sizeof(call.mcast.gid));
	call.mcast.lid = lid;
	return device_link_call(soft_link(qp->context, function), &call);
}

EXPORT int ibv_attach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid)
{
	return multicast(qp, CALL_ATTACH, gid, lid, "attach_mcast");
}

EXPORT int ibv_detach_mcast(struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid)
{
	return multicast(qp, CALL_DETACH, gid, lid, "detach_mcast");
}

/* No vendor's options, as on every device without mlx5's or hns' firmware. */
EXPORT int ibv_set_ece(struct ibv_qp *qp, struct ibv_ece *ece)
{
	soft_link(qp->context, "set_ece");
	return ece->vendor_id ? EOPNOTSUPP : 0;
}

EXPORT int ibv_query_ece(struct ibv_qp *qp, struct ibv_ece *ece)
{
	soft_link(qp->context, "query_ece");
	memset(ece, 0, sizeof(*ece));
	return EOPNOTSUPP;
}

EXPORT int ibv_query_qp_data_in_order(struct ibv_qp *qp, enum ibv_wr_opcode opcode, uint32_t flags)
{
	soft_link(qp->context, "query_qp_data_in_order");
	(void)opcode, (void)flags;
	return 0;
}

static int modify_qp_rate_limit(struct ibv_qp *ibv, struct ibv_qp_rate_limit_attr *attr)
{
	soft_link(ibv->context, "modify_qp_rate_limit");
	/* As mlx5, which does it by modifying the queue pair. */
	if (ibv->state != IBV_QPS_RTS || attr->comp_mask)
		return EINVAL;
	((struct soft_qp *)ibv)->rate = *attr;
	return 0;
}

void soft_fill_qp(struct verbs_context *verbs)
{
	verbs->create_qp_ex = create_qp_ex;
	verbs->open_qp = open_qp;
	verbs->modify_qp_rate_limit = modify_qp_rate_limit;
}
