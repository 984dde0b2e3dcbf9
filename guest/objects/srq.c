#include "objects/srq.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/section.h"
#include "base/verb_gate.h"
#include "objects/async_event.h"
#include "objects/kinds.h"
#include "objects/offer.h"
#include "path/poll.h"
#include "path/recv_shared.h"
#include "real/export.h"
#include "shadow/cq.h"
#include "shadow/pd.h"
#include "shadow/xrcd.h"

static const char many_entries[] = "a shared receive queue with more than 256 scatter entries";
static const char unseen_completions[] = "a shared receive queue whose receives complete on an extended CQ";
static const char unusual_type[] = "a shared receive queue of an unusual type";

/* What is said of one that messages of XRC name. */
#define OF_XRC (IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD | IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ)

uint32_t mig_srq_physical_number(struct ibv_srq *real)
{
	uint32_t number = 0;

	if (verbs_get_ctx_op(real->context, get_srq_num))
		verbs_get_ctx(real->context)->get_srq_num(real, &number);
	return number;
}

/* Of a real queue that is there; ended if there is no memory. */
static struct ibv_srq *wrap(struct ibv_pd *pd, const struct ibv_srq_init_attr *attr, struct mig_srq *srq)
{
	struct mig_context *context = mig_context(pd->context);
	int many = attr->attr.max_sge > 256;

	srq->init = *attr;
	srq->limit = attr->attr.srq_limit;
	srq->ibv.context = pd->context;
	srq->ibv.srq_context = attr->srq_context;
	srq->ibv.pd = pd;
	srq->ibv.handle = srq->real->handle;
	srq->post = context->real->ops.post_srq_recv;
	srq->max_sge = attr->attr.max_sge;
	srq->few_sge = srq->max_sge < MIG_FEW_SGES ? srq->max_sge : MIG_FEW_SGES;
	srq->raw = many;
	srq->number = mig_srq_physical_number(srq->real);
	if (!many && mig_slots_add(srq, attr->attr.max_wr)) {
		mig_real()->ibv_destroy_srq(srq->real);
		free(srq);
		errno = ENOMEM;
		return NULL;
	}
	mig_lock(&context->lock);
	mig_list_add(&context->srqs, &srq->link);
	mig_unlock(&context->lock);
	return many ? mig_marked(pd->context, &srq->ibv, many_entries) : &srq->ibv;
}

struct ibv_srq *ibv_create_srq(struct ibv_pd *pd, struct ibv_srq_init_attr *attr)
{
	if (!mig_pd(pd))
		return mig_real()->ibv_create_srq(pd, attr);
	MIG_VERB;
	struct ibv_srq_init_attr theirs = *attr;
	struct mig_srq *srq = calloc(1, sizeof(*srq));

	if (!srq) {
		errno = ENOMEM;
		return NULL;
	}
	theirs.srq_context = srq;
	srq->real = mig_real()->ibv_create_srq(mig_real_pd(pd), &theirs);
	if (!srq->real) {
		free(srq);
		return NULL;
	}
	attr->attr = theirs.attr;
	return wrap(pd, attr, srq);
}

/* The real one of a queue that messages of XRC name, made of these real objects; what the device grants is in *attr. */
static struct ibv_srq *make_of_xrc(struct mig_srq *srq, struct ibv_pd *pd, struct ibv_xrcd *xrcd, struct ibv_cq *cq,
				  struct ibv_srq_attr *attr)
{
	struct verbs_context *verbs = verbs_get_ctx_op(pd->context, create_srq_ex);
	struct ibv_srq_init_attr_ex theirs = { .srq_context = srq, .attr = *attr, .comp_mask = OF_XRC, .srq_type = IBV_SRQT_XRC,
					       .pd = pd, .xrcd = xrcd, .cq = cq };

	if (!verbs) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	struct ibv_srq *real = verbs->create_srq_ex(pd->context, &theirs);
	*attr = theirs.attr;
	return real;
}

static int is_number_taken(struct mig_context *context, uint32_t number)
{
	MIG_LOCKED(&context->lock);
	MIG_EACH_OF(context, srqs, srq, mig_srq)
		if (srq->xrcd && srq->number == number)
			return 1;
	return mig_numbers_find(&context->spent_srqns, number) != NULL;
}

/* Peers have been told of both: that the one stands for the other, and this one for nothing. 0 or ENOMEM. */
static int spend_numbers(struct mig_srq *srq)
{
	struct mig_context *context = mig_context(srq->ibv.context);
	uint32_t now = mig_srq_physical_number(srq->real);

	if (now == srq->number)
		return 0;
	MIG_LOCKED(&context->lock);
	int error = mig_numbers_add(&context->spent_srqns, srq->number, context);
	return error ? error : mig_numbers_add(&context->spent_srqns, now, context);
}

/* See mig_mr_ask_until_unique. */
static struct ibv_srq *make_of_xrc_until_unique(struct mig_srq *srq, struct ibv_srq_init_attr_ex *attr)
{
	struct mig_context *context = mig_context(attr->pd->context);
	struct mig_refused refused = { 0 };
	struct ibv_srq *real = NULL, *other;
	int again = 1, error = 0;

	while (again && !error) {
		struct ibv_srq_attr attempt = attr->attr;

		real = make_of_xrc(srq, mig_real_pd(attr->pd), mig_real_xrcd(attr->xrcd), mig_real_cq(attr->cq), &attempt);
		if (!real) {
			error = errno;
			break;
		}
		again = is_number_taken(context, mig_srq_physical_number(real));
		if (!again)
			attr->attr = attempt;
		else if ((error = mig_refuse(&refused, real)))
			mig_real()->ibv_destroy_srq(real);
	}
	while ((other = mig_refused_next(&refused)))
		mig_real()->ibv_destroy_srq(other);
	if (error)
		errno = error;
	return error ? NULL : real;
}

static struct ibv_srq *create_of_xrc(struct ibv_srq_init_attr_ex *attr)
{
	struct mig_srq *srq = calloc(1, sizeof(*srq));

	if (!srq) {
		errno = ENOMEM;
		return NULL;
	}
	srq->xrcd = mig_xrcd(attr->xrcd);
	srq->cq = mig_cq(attr->cq);
	srq->real = make_of_xrc_until_unique(srq, attr);
	if (!srq->real) {
		free(srq);
		return NULL;
	}
	return wrap(attr->pd, (struct ibv_srq_init_attr *)attr, srq);
}

static int is_of_xrc(const struct ibv_srq_init_attr_ex *attr)
{
	return attr->comp_mask == OF_XRC && attr->srq_type == IBV_SRQT_XRC && mig_xrcd(attr->xrcd) && mig_cq(attr->cq);
}

/* What completes by a target, where we see it, is taken for ours: so there is none that is not. */
static int can_be_ours(const struct ibv_srq_init_attr_ex *attr)
{
	return mig_pd(attr->pd) && attr->attr.max_sge <= 256;
}

static struct ibv_srq *create_srq_ex(struct ibv_context *ibv, struct ibv_srq_init_attr_ex *attr)
{
	MIG_VERB;
	const uint32_t plain = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD;
	struct ibv_srq_init_attr_ex theirs = *attr;
	int usual = !(attr->comp_mask & IBV_SRQ_INIT_ATTR_TYPE) || attr->srq_type == IBV_SRQT_BASIC;

	if (usual && attr->comp_mask & IBV_SRQ_INIT_ATTR_PD && !(attr->comp_mask & ~plain))
		return ibv_create_srq(attr->pd, (struct ibv_srq_init_attr *)attr);
	if (is_of_xrc(attr)) {
		if (can_be_ours(attr))
			return create_of_xrc(attr);
		errno = EOPNOTSUPP;
		return NULL;
	}
	if (attr->comp_mask & IBV_SRQ_INIT_ATTR_PD)
		theirs.pd = mig_real_pd(attr->pd);
	if (attr->comp_mask & IBV_SRQ_INIT_ATTR_CQ)
		theirs.cq = mig_real_cq(attr->cq);
	if (attr->comp_mask & IBV_SRQ_INIT_ATTR_XRCD)
		theirs.xrcd = mig_real_xrcd(attr->xrcd);
	struct ibv_srq *srq = mig_real_operations(ibv)->create_srq_ex(mig_context(ibv)->real, &theirs);
	attr->attr = theirs.attr;
	return mig_marked(ibv, srq, unusual_type);
}

int mig_srq_used_by_stranger(struct ibv_srq *ibv, struct ibv_cq *recv_cq)
{
	struct mig_srq *srq = mig_srq(ibv);

	if (!srq)
		return 0;
	srq->has_strangers = 1;
	if (srq->raw || mig_cq(recv_cq))
		return 0;
	/* The application would be shown our wr_ids there. Nothing is posted most often: a queue is filled when its QPs are there. */
	mig_lock(&srq->lock);
	MIG_SET_GATE(srq->fast, NULL);
	if (srq->owner.section)
		mig_synchronize_with(srq->owner.section);
	srq->raw = !srq->posted;
	mig_unlock(&srq->lock);
	if (!srq->raw) {
		mig_log(MIG_LOG_ERROR, "a QP whose extended CQ is the real one cannot share receives that were posted before it was made");
		return EOPNOTSUPP;
	}
	mig_mark(mig_context(ibv->context), ibv, unseen_completions);
	return 0;
}

int ibv_modify_srq(struct ibv_srq *ibv, struct ibv_srq_attr *attr, int mask)
{
	struct mig_srq *srq = mig_srq(ibv);

	if (!srq)
		return mig_real()->ibv_modify_srq(ibv, attr, mask);
	MIG_VERB;
	int error = mig_real()->ibv_modify_srq(srq->real, attr, mask);

	if (error)
		return error;
	if (mask & IBV_SRQ_LIMIT)
		srq->limit = attr->srq_limit;
	if (mask & IBV_SRQ_MAX_WR) {
		struct ibv_srq_attr now;

		/* A device may have made it larger than it was asked to. */
		srq->init.attr.max_wr = mig_real()->ibv_query_srq(srq->real, &now) ? attr->max_wr : now.max_wr;
	}
	return 0;
}

int ibv_query_srq(struct ibv_srq *ibv, struct ibv_srq_attr *attr)
{
	struct mig_srq *srq = mig_srq(ibv);

	if (!srq)
		return mig_real()->ibv_query_srq(ibv, attr);
	MIG_VERB;
	int error = mig_real()->ibv_query_srq(srq->real, attr);

	if (error)
		return error;
	/* A device that it has come to may have made it larger. */
	attr->max_wr = srq->init.attr.max_wr;
	attr->max_sge = srq->init.attr.max_sge;
	return 0;
}

static int get_srq_num(struct ibv_srq *ibv, uint32_t *number)
{
	*number = mig_srq(ibv)->number;
	return 0;
}

/* What QPs that we do not shadow have received, and nobody has polled, would keep our wr_id beyond the queue's end. */
static int collect_of_strangers(struct mig_srq *srq)
{
	struct mig_context *context = mig_context(srq->ibv.context);
	int error = 0;

	MIG_LOCKED(&context->lock);
	MIG_EACH(&context->cqs, cq, struct mig_cq, link)
		error = error ? error : mig_cq_collect_shared(cq);
	return error;
}

static int end_real_srq(struct mig_srq *srq)
{
	MIG_VERB_AS("ibv_destroy_srq");
	struct mig_context *context = mig_context(srq->ibv.context);
	int error = srq->has_strangers && !srq->raw ? collect_of_strangers(srq) : 0;

	/* It may end while what has come by it waits, and while targets live by which more could come. */
	if (!error && srq->xrcd)
		error = mig_cq_collect_shared(srq->cq);
	if (!error && srq->xrcd)
		error = spend_numbers(srq);
	if (!error)
		error = mig_real()->ibv_destroy_srq(srq->real);
	if (error)
		return error;
	mig_lock(&context->lock);
	mig_list_remove(&srq->link);
	mig_unlock(&context->lock);
	mig_context_forget_events(context, &srq->ibv);
	if (srq->xrcd && mig_cq_collect_shared(srq->cq))
		mig_log(MIG_LOG_ERROR, "the last completions of a shared receive queue may have numbers that nobody knows");
	mig_slots_free(srq);
	return 0;
}

int ibv_destroy_srq(struct ibv_srq *ibv)
{
	struct mig_srq *srq = mig_srq(ibv);
	struct mig_mark *marks = mig_marks_take(ibv);
	int error = srq ? end_real_srq(srq) : mig_real()->ibv_destroy_srq(ibv);

	mig_marks_settle(marks, error);
	if (!srq || error)
		return error;
	for (;;) {
		uint32_t seen = __atomic_load_n(&ibv->events_completed, __ATOMIC_ACQUIRE);

		if (seen == __atomic_load_n(&srq->async_events, __ATOMIC_RELAXED))
			break;
		mig_futex_wait((int *)&ibv->events_completed, (int)seen, -1);
	}
	free(srq);
	return 0;
}

void mig_srq_offer(struct mig_context *context)
{
	MIG_PUT(context->verbs.context.ops.post_srq_recv, mig_post_srq_recv);
	MIG_OFFER(context, create_srq_ex, create_srq_ex);
	MIG_OFFER(context, get_srq_num, get_srq_num);
}

static struct mig_srq *srq_of(struct mig_link *object)
{
	return MIG_CONTAINER(object, struct mig_srq, link);
}

static void srq_count(const struct mig_link *object, struct mig_inventory *inventory)
{
	struct mig_srq *srq = srq_of((struct mig_link *)(uintptr_t)object);

	inventory->srqs++;
	inventory->receives += mig_slots_taken(srq);
	inventory->keys += srq->xrcd != NULL;
}

/*
 * Large enough for all that was posted and has not completed, which may be more than the application was told that it holds:
 * the device may have had more room, or have lost one with a QP that ended while it was being filled.
 */
static int srq_make(struct mig_context *context, struct mig_link *object)
{
	struct mig_srq *srq = srq_of(object);
	struct ibv_srq_init_attr init = { .srq_context = srq, .attr = srq->init.attr };
	uint32_t taken = mig_slots_taken(srq);

	init.attr.srq_limit = 0;
	if (taken > init.attr.max_wr)
		init.attr.max_wr = taken;
	struct ibv_pd *pd = mig_pd(srq->ibv.pd)->next;

	srq->next = srq->xrcd ? make_of_xrc(srq, pd, srq->xrcd->next, srq->cq->next, &init.attr) : mig_real()->ibv_create_srq(pd, &init);
	if (!srq->next)
		return errno;
	if (init.attr.max_wr < srq->init.attr.max_wr || init.attr.max_sge < srq->init.attr.max_sge)
		return EOPNOTSUPP;
	MIG_LOCKED(&srq->lock);
	srq->reposted = 0;
	return mig_srq_repost(srq, srq->next, context->next_lkeys, &srq->reposted);
}

static void srq_end(struct mig_link *object)
{
	struct mig_srq *srq = srq_of(object);

	mig_real()->ibv_destroy_srq(srq->next);
	srq->next = NULL;
}

static void srq_give_up(struct mig_context *context, struct mig_link *object)
{
	(void)context;
	if (srq_of(object)->next)
		srq_end(object);
}

/* What was posted after the context was rebuilt; and the limit, once what it counts is there. */
static int srq_begin_exchange(struct mig_context *context, struct mig_link *object, struct mig_qp_name *which)
{
	struct mig_srq *srq = srq_of(object);
	struct ibv_srq_attr attr = { .srq_limit = srq->limit };

	(void)which;
	mig_lock(&srq->lock);
	int error = mig_srq_repost(srq, srq->next, context->next_lkeys, &srq->reposted);
	mig_unlock(&srq->lock);
	return error || !srq->limit ? error : mig_real()->ibv_modify_srq(srq->next, &attr, IBV_SRQ_LIMIT);
}

static void srq_exchange(struct mig_context *context, struct mig_link *object)
{
	struct mig_srq *srq = srq_of(object);

	MIG_LOCKED(&srq->lock);
	MIG_EXCHANGE(srq->real, srq->next);
	srq->post = context->real->ops.post_srq_recv;
	srq->ibv.handle = srq->real->handle;
	srq->parked_at = srq->reposted;
}

static void srq_forget(struct mig_link *object)
{
	srq_of(object)->next = NULL;
}

static void srq_close(struct mig_link *object)
{
	mig_srq_close(srq_of(object));
}

static int srq_park(struct mig_link *object)
{
	struct mig_srq *srq = srq_of(object);
	struct ibv_srq_attr attr;

	mig_srq_park(srq);
	/* Only the device knows whether the event has been raised since the application asked for it. */
	if (!mig_real()->ibv_query_srq(srq->real, &attr))
		srq->limit = attr.srq_limit;
	return 0;
}

static int srq_unpark(struct mig_link *object, struct mig_qp_name *which)
{
	(void)which;
	return mig_srq_open(srq_of(object));
}

const struct mig_kind mig_srq_kind = {
	.name = "shared receive queue",
	.list = MIG_LIST_OF(srqs),
	.count = srq_count,
	.make = srq_make,
	.give_up = srq_give_up,
	.begin_exchange = srq_begin_exchange,
	.exchange = srq_exchange,
	.end = srq_end,
	.forget = srq_forget,
	.close = srq_close,
	.park = srq_park,
	.unpark = srq_unpark,
};
