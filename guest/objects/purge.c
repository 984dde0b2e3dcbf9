#include "objects/purge.h"

#include <time.h>

#include "real/real.h"

/* The flush of a queue of two receives is a matter of microseconds; this is for a device that does not flush at all. */
#define MOST_NAPS 500

static struct ibv_qp *qp_in_error(struct ibv_pd *pd, struct ibv_cq *cq)
{
	const struct mig_real *real = mig_real();
	struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = { 1, 2, 1, 1, 0 } };
	struct ibv_recv_wr second = { .wr_id = 2 }, first = { .wr_id = 1, .next = &second }, *bad;
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1 };
	struct ibv_qp *qp = real->ibv_create_qp(pd, &init);

	if (!qp)
		return NULL;
	int error = real->ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
	if (!error)
		error = qp->context->ops.post_recv(qp, &first, &bad);
	attr.qp_state = IBV_QPS_ERR;
	if (!error)
		error = real->ibv_modify_qp(qp, &attr, IBV_QP_STATE);
	if (!error)
		return qp;
	real->ibv_destroy_qp(qp);
	return NULL;
}

/* Of the two completions the first says that they have come; the second is there after the end of its QP, or not. */
static int second_stays(struct ibv_qp *qp, struct ibv_cq *cq)
{
	const struct timespec nap = { 0, 200000 };
	struct ibv_wc wc;
	int naps = 0, got;

	while (!(got = cq->context->ops.poll_cq(cq, 1, &wc)) && naps++ < MOST_NAPS)
		nanosleep(&nap, NULL);
	mig_real()->ibv_destroy_qp(qp);
	return got == 1 && cq->context->ops.poll_cq(cq, 1, &wc) == 1;
}

/* Nothing says it but the device itself: the name of a driver would have to be known, and its version. */
static int completions_stay(struct ibv_context *context)
{
	const struct mig_real *real = mig_real();
	struct ibv_pd *pd = real->ibv_alloc_pd(context);
	struct ibv_cq *cq = pd ? real->ibv_create_cq(context, 4, NULL, NULL, 0) : NULL;
	struct ibv_qp *qp = cq ? qp_in_error(pd, cq) : NULL;
	int stay = qp ? second_stays(qp, cq) : 0;

	if (cq)
		real->ibv_destroy_cq(cq);
	if (pd)
		real->ibv_dealloc_pd(pd);
	return stay;
}

int mig_device_purges(struct mig_context *context)
{
	int known = __atomic_load_n(&context->purges, __ATOMIC_RELAXED);

	if (known == MIG_PURGES_UNKNOWN) {
		known = completions_stay(context->real) ? MIG_PURGES_NOT : MIG_PURGES;
		__atomic_store_n(&context->purges, known, __ATOMIC_RELAXED);
	}
	return known == MIG_PURGES;
}
