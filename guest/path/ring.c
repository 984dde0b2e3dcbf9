#include "path/ring.h"

#include <errno.h>

#include "base/pages.h"
#include "base/section.h"

/* A larger ring is made without the lock, which others may win meanwhile. */
int mig_cq_ring_reserve(struct mig_cq *cq, uint32_t more)
{
	for (;;) {
		mig_lock(&cq->lock);
		uint32_t used = cq->ring_tail - cq->ring_head, old_size = cq->ring_size;
		mig_unlock(&cq->lock);
		if (old_size - used >= more)
			return 0;

		uint32_t size = old_size ? old_size : 256;
		while (size - used < more)
			size *= 2;
		struct ibv_wc *ring = mig_pages_alloc(size * sizeof(*ring)), *old = ring;
		if (!ring)
			return ENOMEM;
		mig_lock(&cq->lock);
		used = cq->ring_tail - cq->ring_head;
		if (cq->ring_size == old_size && size - used >= more) {
			for (uint32_t i = 0; i < used; i++)
				ring[i] = cq->ring[(cq->ring_head + i) & (old_size - 1)];
			old = cq->ring;
			cq->ring = ring;
			cq->ring_size = size;
			cq->ring_head = 0;
			cq->ring_tail = used;
		}
		mig_unlock(&cq->lock);
		mig_pages_free(old);
	}
}

int mig_cq_ring_take(struct mig_cq *cq, int entries, struct ibv_wc *wc)
{
	int taken = 0;

	while (taken < entries && cq->ring_head != cq->ring_tail)
		wc[taken++] = cq->ring[cq->ring_head++ & (cq->ring_size - 1)];
	return taken;
}

int mig_cq_ring_has(struct mig_cq *cq, uint32_t qp_num)
{
	MIG_LOCKED(&cq->lock);
	for (uint32_t at = cq->ring_head; at != cq->ring_tail; at++)
		if (cq->ring[at & (cq->ring_size - 1)].qp_num == qp_num)
			return 1;
	return 0;
}

void mig_cq_ring_purge(struct mig_cq *cq, uint32_t qp_num)
{
	MIG_LOCKED(&cq->lock);
	uint32_t end = cq->ring_tail;

	cq->ring_tail = cq->ring_head;
	for (uint32_t at = cq->ring_head; at != end; at++) {
		const struct ibv_wc *wc = &cq->ring[at & (cq->ring_size - 1)];

		if (wc->qp_num != qp_num)
			mig_cq_ring_put(cq, wc);
	}
}

int mig_cq_push(struct mig_cq *cq, const struct ibv_wc *wc)
{
	int error = mig_cq_ring_reserve(cq, 1);

	if (error)
		return error;
	MIG_LOCKED(&cq->lock);
	MIG_SET_GATE(cq->fast, NULL);
	mig_cq_ring_put(cq, wc);
	return 0;
}
