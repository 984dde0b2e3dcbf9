/* Completion queues. */
#include <errno.h>
#include <stdlib.h>

#include "export.h"
#include "soft.h"

static struct rnic_ring *new_ring(struct device_link *link, uint32_t depth, rnic_reference *reference)
{
	void *memory;
	int error = device_link_alloc(link, rnic_ring_size(depth, sizeof(struct rnic_completion)), &memory, reference);

	if (error) {
		errno = error;
		return NULL;
	}
	rnic_ring_init(memory, depth, sizeof(struct rnic_completion));
	return memory;
}

static int limit_of(struct device_link *link)
{
	struct rnic_call call = { .name = CALL_QUERY_DEVICE };

	return device_link_call(link, &call) ? 0 : call.device_attr.max_cqe;
}

static int in_parent_domain(struct soft_owned *owned, struct ibv_pd *pd)
{
	return ((struct soft_pd *)pd)->is_parent_domain ? soft_own(owned, pd) : EINVAL;
}

static struct soft_cq *create(struct ibv_context *context, uint32_t entries, void *cq_context,
			      struct ibv_comp_channel *channel, const struct ibv_cq_init_attr_ex *extended)
{
	struct device_link *link = soft_link(context, "create_cq");
	struct rnic_call call = { .name = CALL_CREATE_CQ };
	struct soft_cq *cq = calloc(1, sizeof(*cq));
	int error = cq ? 0 : ENOMEM;

	if (channel && channel->context != context)
		abort();
	if (!error && (!entries || entries > (uint32_t)limit_of(link)))
		error = EINVAL;
	if (!error && extended)
		error = soft_fill_cq_ex(cq, extended);
	if (!error && extended && extended->comp_mask & IBV_CQ_INIT_ATTR_MASK_PD)
		error = in_parent_domain(&cq->owned, extended->parent_domain);
	if (!error && !(cq->ring = new_ring(link, entries, &call.cq.ring)))
		error = errno;
	call.cq.cookie = (uintptr_t)cq;
	call.cq.channel = channel ? ((struct soft_channel *)channel)->handle : RNIC_NONE;
	if (!error && (error = device_link_call(link, &call)))
		device_link_free(link, cq->ring);
	if (error) {
		if (cq)
			soft_disown(&cq->owned);
		free(cq);
		errno = error;
		return NULL;
	}
	cq->ibv.context = context;
	cq->ibv.channel = channel;
	cq->ibv.cq_context = cq_context;
	cq->ibv.handle = call.handle;
	cq->ibv.cqe = (int)entries;
	pthread_mutex_init(&cq->ibv.mutex, NULL);
	pthread_cond_init(&cq->ibv.cond, NULL);
	pthread_mutex_init(&cq->lock, NULL);
	if (channel)
		__atomic_add_fetch(&channel->refcnt, 1, __ATOMIC_SEQ_CST);
	return cq;
}

EXPORT struct ibv_cq *ibv_create_cq(struct ibv_context *context, int entries, void *cq_context,
				    struct ibv_comp_channel *channel, int vector)
{
	if (entries < 0 || vector < 0 || vector >= context->num_comp_vectors) {
		errno = EINVAL;
		return NULL;
	}
	struct soft_cq *cq = create(context, (uint32_t)entries, cq_context, channel, NULL);

	return cq ? &cq->ibv : NULL;
}

static struct ibv_cq_ex *create_cq_ex(struct ibv_context *context, struct ibv_cq_init_attr_ex *attr)
{
	struct soft_cq *cq = create(context, attr->cqe, attr->cq_context, attr->channel, attr);

	return cq ? &cq->ex : NULL;
}

EXPORT int ibv_resize_cq(struct ibv_cq *ibv, int entries)
{
	struct soft_cq *cq = (struct soft_cq *)ibv;
	struct device_link *link = soft_link(ibv->context, "resize_cq");
	struct rnic_call call = { .name = CALL_RESIZE_CQ, .handle = ibv->handle };
	struct rnic_ring *ring, *before;

	if (entries < 1 || entries > limit_of(link))
		return EINVAL;
	if (!(ring = new_ring(link, (uint32_t)entries, &call.cq.ring)))
		return errno;
	/* Nobody polls while what is there moves over. */
	pthread_mutex_lock(&cq->lock);
	int error = device_link_call(link, &call);
	before = error ? ring : cq->ring;
	if (!error) {
		cq->ring = ring;
		ibv->cqe = entries;
	}
	pthread_mutex_unlock(&cq->lock);
	device_link_free(link, before);
	return error;
}

static void await_events(struct soft_context *context, struct soft_cq *cq)
{
	struct ibv_cq *ibv = &cq->ibv;

	if (ibv->channel)
		soft_events_forget(&((struct soft_channel *)ibv->channel)->events, RNIC_CQ, (uintptr_t)cq);
	soft_events_forget(&context->async, RNIC_CQ, (uintptr_t)cq);
	/* Whoever has taken an event uses this queue until it has acknowledged it. */
	pthread_mutex_lock(&ibv->mutex);
	while (ibv->comp_events_completed != __atomic_load_n(&cq->events, __ATOMIC_SEQ_CST) ||
	       ibv->async_events_completed != __atomic_load_n(&cq->async_events, __ATOMIC_SEQ_CST))
		pthread_cond_wait(&ibv->cond, &ibv->mutex);
	pthread_mutex_unlock(&ibv->mutex);
}

EXPORT int ibv_destroy_cq(struct ibv_cq *ibv)
{
	struct soft_cq *cq = (struct soft_cq *)ibv;
	struct soft_context *context = soft_context(ibv->context);
	int error = soft_end(ibv->context, CALL_DESTROY_CQ, ibv->handle, "destroy_cq");

	if (error)
		return error;
	if (!soft_is_gone(ibv->context))
		await_events(context, cq);
	if (ibv->channel)
		__atomic_sub_fetch(&ibv->channel->refcnt, 1, __ATOMIC_SEQ_CST);
	device_link_free(context->link, cq->ring);
	soft_disown(&cq->owned);
	free(cq);
	return 0;
}

void soft_completion_to_wc(const struct rnic_completion *completion, struct ibv_wc *wc)
{
	*wc = (struct ibv_wc){
		.wr_id = completion->wr_id,
		.status = (enum ibv_wc_status)completion->status,
		.opcode = (enum ibv_wc_opcode)completion->opcode,
		.vendor_err = completion->vendor_error,
		.byte_len = completion->bytes,
		.imm_data = completion->imm,
		.qp_num = completion->qpn,
		.src_qp = completion->source_qpn,
		.wc_flags = completion->flags,
		.pkey_index = completion->pkey_index,
		.slid = completion->slid,
		.sl = completion->sl,
		.dlid_path_bits = completion->path_bits,
	};
}

static int poll_cq(struct ibv_cq *ibv, int entries, struct ibv_wc *wc)
{
	struct soft_cq *cq = (struct soft_cq *)ibv;
	struct device_link *link = soft_link(ibv->context, "poll_cq");
	const struct rnic_completion *completion;
	uint32_t count = 0;

	if (soft_fault(link, "poll_cq"))
		return -1;
	pthread_mutex_lock(&cq->lock);
	while ((int)count < entries && (completion = rnic_ring_oldest(cq->ring, count)))
		soft_completion_to_wc(completion, &wc[count++]);
	if (count)
		rnic_ring_take(cq->ring, count);
	pthread_mutex_unlock(&cq->lock);
	if (!count && entries > 0)
		device_link_progress(link);
	return (int)count;
}

static int req_notify_cq(struct ibv_cq *ibv, int solicited_only)
{
	struct soft_cq *cq = (struct soft_cq *)ibv;
	struct device_link *link = soft_link(ibv->context, "req_notify_cq");
	uint32_t wanted = solicited_only ? RNIC_ARMED_SOLICITED : RNIC_ARMED_ANY, armed;
	int error = soft_fault(link, "req_notify_cq");

	if (error)
		return error;
	/* To ask for less does not take back what was asked for before; the device takes it back when it happens. */
	armed = __atomic_load_n(&cq->ring->armed, __ATOMIC_SEQ_CST);
	while (armed < wanted &&
	       !__atomic_compare_exchange_n(&cq->ring->armed, &armed, wanted, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	return 0;
}

void soft_purge(struct soft_qp *qp)
{
	struct device_link *link = soft_context(qp->ibv.context)->link;
	struct ibv_cq *queues[2] = { qp->ibv.send_cq, qp->ibv.recv_cq };

	if (!(link->ways & RNIC_PURGES))
		return;
	for (int i = 0; i < 2; i++) {
		struct soft_cq *cq = (struct soft_cq *)queues[i];

		if (!cq || (i && queues[1] == queues[0]))
			continue;
		pthread_mutex_lock(&cq->lock);
		rnic_completions_purge(cq->ring, qp->ibv.qp_num);
		pthread_mutex_unlock(&cq->lock);
	}
}

static int modify_cq(struct ibv_cq *cq, struct ibv_modify_cq_attr *attr)
{
	soft_link(cq->context, "modify_cq");
	if (attr->attr_mask & ~(uint32_t)IBV_CQ_ATTR_MODERATE)
		return EOPNOTSUPP;
	((struct soft_cq *)cq)->moderation = attr->moderate;
	return 0;
}

void soft_fill_cq(struct verbs_context *verbs)
{
	verbs->context.ops.poll_cq = poll_cq;
	verbs->context.ops.req_notify_cq = req_notify_cq;
	verbs->create_cq_ex = create_cq_ex;
	verbs->modify_cq = modify_cq;
}
