#include "objects/xrcd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/verb_gate.h"
#include "objects/kinds.h"
#include "objects/offer.h"
#include "path/poll.h"
#include "real/real.h"
#include "shadow/mw.h"
#include "shadow/srq.h"

static const char shared_by_file[] = "an XRC domain that was open already when this process opened its file";

static struct ibv_xrcd *xrcd_make_real(struct ibv_context *real, int fd, int oflags)
{
	struct ibv_xrcd_init_attr attr = { .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = fd,
					   .oflags = oflags };
	struct verbs_context *verbs = verbs_get_ctx_op(real, open_xrcd);

	if (verbs)
		return verbs->open_xrcd(real, &attr);
	errno = EOPNOTSUPP;
	return NULL;
}

/*
 * Who opens the file after us shares the domain, and knows it by this: that it could not be the first. What others have made
 * in a domain moves with them or not at all, so each of them is refused but for the first.
 */
static struct ibv_xrcd *open_first(struct ibv_context *real, int fd, int oflags, int *is_shared)
{
	int may_be_first = fd != -1 && oflags & O_CREAT;
	struct ibv_xrcd *made = may_be_first ? xrcd_make_real(real, fd, oflags | O_EXCL) : NULL;

	*is_shared = !made && fd != -1;
	return made ? made : xrcd_make_real(real, fd, oflags);
}

static int nothing_comes(struct ibv_cq *cq, int entries, struct ibv_wc *wc)
{
	(void)cq, (void)entries, (void)wc;
	return 0;
}

static struct ibv_xrcd *open_xrcd(struct ibv_context *ibv, struct ibv_xrcd_init_attr *attr)
{
	const uint32_t needed = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS;
	struct mig_context *context = mig_context(ibv);
	int is_shared = 0, error = 0;

	MIG_VERB;
	/* One of nobody else's has the descriptor -1: both are needed. */
	struct mig_xrcd *xrcd = attr->comp_mask == needed ? calloc(1, sizeof(*xrcd)) : NULL;
	if (!xrcd) {
		errno = attr->comp_mask == needed ? ENOMEM : attr->comp_mask & ~needed ? EOPNOTSUPP : EINVAL;
		return NULL;
	}
	xrcd->fd = -1;
	/* The application may close its own at once. */
	if (attr->fd != -1 && (xrcd->fd = fcntl(attr->fd, F_DUPFD_CLOEXEC, 0)) < 0)
		error = errno;
	else if (!(xrcd->real = open_first(context->real, attr->fd, attr->oflags, &is_shared)))
		error = errno;
	if (error) {
		if (xrcd->fd != -1)
			close(xrcd->fd);
		free(xrcd);
		errno = error;
		return NULL;
	}
	xrcd->ibv.context = xrcd->nothing.ibv.context = ibv;
	xrcd->nothing.poll = nothing_comes;
	mig_lock(&context->lock);
	xrcd->id = ++context->pds_made;
	mig_list_add(&context->xrcds, &xrcd->link);
	mig_unlock(&context->lock);
	return is_shared ? mig_marked(ibv, &xrcd->ibv, shared_by_file) : &xrcd->ibv;
}

static int end_real_xrcd(struct ibv_xrcd *real)
{
	return verbs_get_ctx(real->context)->close_xrcd(real);
}

static int close_xrcd(struct ibv_xrcd *ibv)
{
	struct mig_xrcd *xrcd = mig_xrcd(ibv);
	struct mig_context *context = mig_context(ibv->context);

	MIG_VERB;
	struct mig_mark *marks = mig_marks_take(ibv);
	int error = end_real_xrcd(xrcd->real);
	mig_marks_settle(marks, error);
	if (error)
		return error;
	mig_lock(&context->lock);
	mig_list_remove(&xrcd->link);
	mig_unlock(&context->lock);
	if (xrcd->fd != -1)
		close(xrcd->fd);
	free(xrcd);
	return 0;
}

void mig_xrcd_offer(struct mig_context *context)
{
	MIG_OFFER(context, open_xrcd, open_xrcd);
	MIG_OFFER(context, close_xrcd, close_xrcd);
}

int mig_xrcd_collect(struct mig_xrcd *xrcd)
{
	struct mig_context *context = mig_context(xrcd->ibv.context);
	int error = 0;

	MIG_LOCKED(&context->lock);
	MIG_EACH(&context->srqs, srq, struct mig_srq, link)
		if (srq->xrcd == xrcd && !error)
			error = mig_cq_collect_shared(srq->cq);
	return error;
}

static struct mig_xrcd *xrcd_of(struct mig_link *object)
{
	return MIG_CONTAINER(object, struct mig_xrcd, link);
}

/* Who sends to its targets is told all keys of the device: of which memory they are good is said by each message. */
static void xrcd_count(const struct mig_link *object, struct mig_inventory *inventory)
{
	struct mig_context *context = mig_context(MIG_CONTAINER(object, const struct mig_xrcd, link)->ibv.context);

	for (struct mig_link *one = context->mrs.next; one != &context->mrs; one = one->next)
		inventory->keys++;
	for (struct mig_link *one = context->mws.next; one != &context->mws; one = one->next)
		inventory->keys += MIG_MW_VARIANTS;
}

static int xrcd_make(struct mig_context *context, struct mig_link *object)
{
	struct mig_xrcd *xrcd = xrcd_of(object);

	xrcd->next = xrcd_make_real(context->next, xrcd->fd, O_CREAT);
	return xrcd->next ? 0 : errno;
}

static void xrcd_end(struct mig_link *object)
{
	struct mig_xrcd *xrcd = xrcd_of(object);

	end_real_xrcd(xrcd->next);
	xrcd->next = NULL;
}

static void xrcd_give_up(struct mig_context *context, struct mig_link *object)
{
	(void)context;
	if (xrcd_of(object)->next)
		xrcd_end(object);
}

static void xrcd_exchange(struct mig_context *context, struct mig_link *object)
{
	struct mig_xrcd *xrcd = xrcd_of(object);

	(void)context;
	MIG_EXCHANGE(xrcd->real, xrcd->next);
}

static void xrcd_forget(struct mig_link *object)
{
	xrcd_of(object)->next = NULL;
}

const struct mig_kind mig_xrcd_kind = {
	.name = "XRC domain",
	.list = MIG_LIST_OF(xrcds),
	.count = xrcd_count,
	.make = xrcd_make,
	.give_up = xrcd_give_up,
	.exchange = xrcd_exchange,
	.end = xrcd_end,
	.forget = xrcd_forget,
};
