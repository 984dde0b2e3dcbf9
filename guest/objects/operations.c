/*
 * The tables that inline functions of verbs.h call through. What is not virtualised yet is passed to the real
 * object and handed back as the real library made it: its own context pointer then leads every later inline call
 * to the real library. What matters is that none of our objects goes with it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/keymap.h"
#include "objects/object.h"
#include "base/verb_gate.h"

static struct verbs_context *extended(struct ibv_context *ibv)
{
	return verbs_get_ctx(mig_context(ibv)->real);
}

static int query_port(struct ibv_context *ibv, uint8_t port, struct ibv_port_attr *attr, size_t size)
{
	MIG_VERB;
	return extended(ibv)->query_port(mig_context(ibv)->real, port, attr, size);
}

static int query_device_ex(struct ibv_context *ibv, const struct ibv_query_device_ex_input *input,
			   struct ibv_device_attr_ex *attr, size_t size)
{
	MIG_VERB;
	return extended(ibv)->query_device_ex(mig_context(ibv)->real, input, attr, size);
}

static int query_rt_values(struct ibv_context *ibv, struct ibv_values_ex *values)
{
	MIG_VERB;
	return extended(ibv)->query_rt_values(mig_context(ibv)->real, values);
}

static int advise_mr(struct ibv_pd *pd, enum ibv_advise_mr_advice advice, uint32_t flags, struct ibv_sge *sges,
		     uint32_t count)
{
	MIG_VERB;
	struct mig_context *context = mig_context(pd->context);
	struct ibv_sge *copy = calloc(count ? count : 1, sizeof(*copy));

	if (!copy)
		return ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		copy[i] = sges[i];
		copy[i].lkey = mig_keymap_get(context->lkeys, sges[i].lkey);
	}
	int error = extended(pd->context)->advise_mr(mig_real_pd(pd), advice, flags, copy, count);
	free(copy);
	return error;
}

static struct ibv_mr *alloc_null_mr(struct ibv_pd *pd)
{
	MIG_VERB;
	mig_cannot_migrate("a null memory region");
	return extended(pd->context)->alloc_null_mr(mig_real_pd(pd));
}

static struct ibv_dm *alloc_dm(struct ibv_context *ibv, struct ibv_alloc_dm_attr *attr)
{
	MIG_VERB;
	mig_cannot_migrate("device memory");
	return extended(ibv)->alloc_dm(mig_context(ibv)->real, attr);
}

static struct ibv_mr *reg_dm_mr(struct ibv_pd *pd, struct ibv_dm *dm, uint64_t offset, size_t length,
				unsigned int access)
{
	MIG_VERB;
	return extended(pd->context)->reg_dm_mr(mig_real_pd(pd), dm, offset, length, access);
}

static struct ibv_counters *create_counters(struct ibv_context *ibv, struct ibv_counters_init_attr *attr)
{
	MIG_VERB;
	mig_cannot_migrate("counters");
	return extended(ibv)->create_counters(mig_context(ibv)->real, attr);
}

static struct ibv_flow_action *create_flow_action_esp(struct ibv_context *ibv,
						      struct ibv_flow_action_esp_attr *attr)
{
	MIG_VERB;
	mig_cannot_migrate("a flow action");
	return extended(ibv)->create_flow_action_esp(mig_context(ibv)->real, attr);
}

static struct ibv_flow *create_flow(struct ibv_qp *qp, struct ibv_flow_attr *attr)
{
	MIG_VERB;
	mig_cannot_migrate("flow steering");
	return extended(qp->context)->ibv_create_flow(mig_real_qp(qp), attr);
}

static int modify_qp_rate_limit(struct ibv_qp *qp, struct ibv_qp_rate_limit_attr *attr)
{
	MIG_VERB;
	mig_cannot_migrate("a QP with a rate limit");
	return extended(qp->context)->modify_qp_rate_limit(mig_real_qp(qp), attr);
}

static int modify_cq(struct ibv_cq *cq, struct ibv_modify_cq_attr *attr)
{
	MIG_VERB;
	mig_cannot_migrate("CQ moderation");
	return extended(cq->context)->modify_cq(mig_real_cq(cq), attr);
}

static struct ibv_td *alloc_td(struct ibv_context *ibv, struct ibv_td_init_attr *attr)
{
	MIG_VERB;
	mig_cannot_migrate("a thread domain");
	return extended(ibv)->alloc_td(mig_context(ibv)->real, attr);
}

/* Wrapped, not passed through: CQs and QPs of ours may be made in it. */
static struct ibv_pd *alloc_parent_domain(struct ibv_context *ibv, struct ibv_parent_domain_init_attr *attr)
{
	MIG_VERB;
	struct ibv_parent_domain_init_attr theirs = *attr;

	mig_cannot_migrate("a parent domain");
	theirs.pd = mig_real_pd(attr->pd);
	struct ibv_pd *real = extended(ibv)->alloc_parent_domain(mig_context(ibv)->real, &theirs);
	return real ? mig_pd_wrap(mig_context(ibv), real) : NULL;
}

static struct ibv_wq *create_wq(struct ibv_context *ibv, struct ibv_wq_init_attr *attr)
{
	MIG_VERB;
	struct ibv_wq_init_attr theirs = *attr;

	mig_cannot_migrate("a work queue");
	theirs.pd = mig_real_pd(attr->pd);
	theirs.cq = mig_real_cq(attr->cq);
	struct ibv_wq *wq = extended(ibv)->create_wq(mig_context(ibv)->real, &theirs);
	attr->max_wr = theirs.max_wr;
	attr->max_sge = theirs.max_sge;
	return wq;
}

static struct ibv_rwq_ind_table *create_rwq_ind_table(struct ibv_context *ibv,
						      struct ibv_rwq_ind_table_init_attr *attr)
{
	MIG_VERB;
	mig_cannot_migrate("a receive work queue table");
	return extended(ibv)->create_rwq_ind_table(mig_context(ibv)->real, attr);
}

static struct ibv_cq_ex *create_cq_ex(struct ibv_context *ibv, struct ibv_cq_init_attr_ex *attr)
{
	MIG_VERB;
	struct mig_context *context = mig_context(ibv);
	int saved = errno;

	errno = 0;
	struct ibv_cq_ex *cq = mig_create_cq_ex(context, attr);

	if (cq || errno) {
		errno = cq ? saved : errno;
		return cq;
	}

	struct ibv_cq_init_attr_ex theirs = *attr;

	mig_cannot_migrate("an extended CQ with more than standard completions");
	theirs.channel = mig_real_comp_channel(attr->channel);
	if (attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_PD)
		theirs.parent_domain = mig_real_pd(attr->parent_domain);
	if (attr->channel)
		__atomic_store_n(&context->has_foreign_cqs, 1, __ATOMIC_RELEASE);
	return extended(ibv)->create_cq_ex(context->real, &theirs);
}

static struct ibv_qp *create_qp_ex(struct ibv_context *ibv, struct ibv_qp_init_attr_ex *attr)
{
	MIG_VERB;
	struct ibv_qp_init_attr_ex theirs;
	size_t known = offsetof(struct ibv_qp_init_attr_ex, comp_mask) + sizeof(attr->comp_mask);

	/* Only as much of it is there as its mask says. */
	if (attr->comp_mask & ~(uint32_t)IBV_QP_INIT_ATTR_PD)
		known = sizeof(theirs);
	else if (attr->comp_mask)
		known = offsetof(struct ibv_qp_init_attr_ex, pd) + sizeof(attr->pd);
	memset(&theirs, 0, sizeof(theirs));
	memcpy(&theirs, attr, known);
	mig_cannot_migrate("a QP made by ibv_create_qp_ex");
	theirs.send_cq = mig_real_cq(attr->send_cq);
	theirs.recv_cq = mig_real_cq(attr->recv_cq);
	if (attr->comp_mask & IBV_QP_INIT_ATTR_PD)
		theirs.pd = mig_real_pd(attr->pd);
	struct ibv_qp *qp = extended(ibv)->create_qp_ex(mig_context(ibv)->real, &theirs);
	attr->cap = theirs.cap;
	return qp;
}

static struct ibv_qp *open_qp(struct ibv_context *ibv, struct ibv_qp_open_attr *attr)
{
	MIG_VERB;
	mig_cannot_migrate("a shared XRC QP");
	return extended(ibv)->open_qp(mig_context(ibv)->real, attr);
}

static struct ibv_srq *create_srq_ex(struct ibv_context *ibv, struct ibv_srq_init_attr_ex *attr)
{
	MIG_VERB;
	struct ibv_srq_init_attr_ex theirs = *attr;

	mig_cannot_migrate("a shared receive queue");
	if (attr->comp_mask & IBV_SRQ_INIT_ATTR_PD)
		theirs.pd = mig_real_pd(attr->pd);
	if (attr->comp_mask & IBV_SRQ_INIT_ATTR_CQ)
		theirs.cq = mig_real_cq(attr->cq);
	struct ibv_srq *srq = extended(ibv)->create_srq_ex(mig_context(ibv)->real, &theirs);
	attr->attr = theirs.attr;
	return srq;
}

static struct ibv_xrcd *open_xrcd(struct ibv_context *ibv, struct ibv_xrcd_init_attr *attr)
{
	MIG_VERB;
	mig_cannot_migrate("an XRC domain");
	return extended(ibv)->open_xrcd(mig_context(ibv)->real, attr);
}

/*
 * Memory windows: ibv_bind_mw compares the window's protection domain with the region's and goes through the
 * window's context, so these two pointers of the real object have to be ours. The real library gets its own back.
 */
static struct ibv_mw *alloc_mw(struct ibv_pd *pd, enum ibv_mw_type type)
{
	MIG_VERB;
	struct mig_context *context = mig_context(pd->context);

	mig_cannot_migrate("a memory window");
	if (!context->real->ops.alloc_mw) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	struct ibv_mw *mw = context->real->ops.alloc_mw(mig_real_pd(pd), type);
	if (!mw)
		return NULL;
	mw->context = pd->context;
	mw->pd = pd;
	mig_lock(&context->lock);
	if (!context->has_windows) {
		context->has_windows = 1;
		MIG_EACH(&context->qps, qp, struct mig_qp, link)
			mig_qp_set_operations(qp);
	}
	mig_unlock(&context->lock);
	return mw;
}

static int dealloc_mw(struct ibv_mw *mw)
{
	MIG_VERB;
	struct mig_context *context = mig_context(mw->context);
	struct ibv_pd *pd = mw->pd;

	mw->context = context->real;
	mw->pd = mig_real_pd(pd);
	int error = context->real->ops.dealloc_mw(mw);
	if (error) {
		mw->context = &context->verbs.context;
		mw->pd = pd;
	}
	return error;
}

static int bind_mw(struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind)
{
	struct mig_context *context = mig_context(mw->context);
	struct ibv_mw_bind theirs = *bind;
	struct ibv_pd *pd = mw->pd;

	MIG_LOCKED(&context->lock);
	theirs.bind_info.mr = mig_real_mr(bind->bind_info.mr);
	mw->context = context->real;
	mw->pd = mig_real_pd(pd);
	int error = context->real->ops.bind_mw(mig_real_qp(qp), mw, &theirs);
	mw->context = &context->verbs.context;
	mw->pd = pd;
	return error;
}

void mig_fill_operations(struct mig_context *context)
{
	struct ibv_context *real = context->real;
	struct verbs_context *verbs = &context->verbs;
	struct ibv_context_ops *operations = &verbs->context.ops;

	operations->_compat_query_device = ibv_query_device;
	operations->_compat_query_port = ibv_query_port;
	operations->alloc_mw = real->ops.alloc_mw ? alloc_mw : NULL;
	operations->bind_mw = bind_mw;
	operations->dealloc_mw = dealloc_mw;
	operations->poll_cq = mig_poll_cq;
	operations->req_notify_cq = mig_req_notify_cq;
	operations->post_srq_recv = real->ops.post_srq_recv;
	operations->post_send = mig_post_send;
	operations->post_recv = mig_post_recv;

	/* Where the real one has none, neither have we, and the inline function says "not supported". */
#define OFFER(operation)                                                                                   \
	if (verbs_get_ctx_op(real, operation))                                                             \
		verbs->operation = operation;
	OFFER(query_port)
	OFFER(query_device_ex)
	OFFER(query_rt_values)
	OFFER(advise_mr)
	OFFER(alloc_null_mr)
	OFFER(alloc_dm)
	OFFER(reg_dm_mr)
	OFFER(create_counters)
	OFFER(create_flow_action_esp)
	OFFER(modify_qp_rate_limit)
	OFFER(modify_cq)
	OFFER(alloc_td)
	OFFER(alloc_parent_domain)
	OFFER(create_wq)
	OFFER(create_rwq_ind_table)
	OFFER(create_cq_ex)
	OFFER(create_qp_ex)
	OFFER(open_qp)
	OFFER(create_srq_ex)
	OFFER(open_xrcd)
#undef OFFER
	if (verbs_get_ctx_op(real, ibv_create_flow)) {
		verbs->ibv_create_flow = create_flow;
		/* Programs built against libibverbs 1.1.8 look here. */
		verbs->ABI_placeholder1 = (void (*)(void))create_flow;
		verbs->ibv_destroy_flow = verbs_get_ctx(real)->ibv_destroy_flow;
		verbs->ABI_placeholder2 = (void (*)(void))verbs->ibv_destroy_flow;
	}
}
