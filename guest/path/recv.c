/*
 * Posting receives, and remembering them: after a move the ones that no message has used yet are posted again.
 *
 * The ring has one writer at its tail, which is whoever posts: the one thread that qp->recv_fast names, or the
 * holder of the lock: base/owner.h. The head is written by the poller.
 */
#include "path/recv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/likely.h"
#include "base/section.h"
#include "path/recv_real.h"
#include "path/translate.h"

/* In front of the ring its mask, so that a poller that looks at an entry finds both at once. */
#define RING_HEAD 64

static char *ring_new(uint32_t size, uint32_t stride)
{
	char *memory = calloc(1, RING_HEAD + (size_t)size * stride);

	if (!memory)
		return NULL;
	*(uint32_t *)(void *)memory = size - 1;
	return memory + RING_HEAD;
}

static void ring_free(char *ring)
{
	free(ring ? ring - RING_HEAD : NULL);
}

void mig_recv_free(struct mig_qp *qp)
{
	ring_free(qp ? qp->ring : NULL);
}

static struct mig_recv *entry(const struct mig_qp *qp, char *ring, uint32_t mask, uint32_t position)
{
	return (struct mig_recv *)(ring + (size_t)(position & mask) * qp->stride);
}

const struct mig_recv *mig_recv_at(const struct mig_qp *qp, uint32_t position)
{
	char *ring = __atomic_load_n(&qp->ring, __ATOMIC_ACQUIRE);

	return entry(qp, ring, *(uint32_t *)(void *)(ring - RING_HEAD), position);
}

int mig_recv_init(struct mig_qp *qp)
{
	uint32_t size = 16;

	if (qp->shares)
		return 0;
	qp->room = qp->cap.max_recv_wr + 1;
	while (size < 2 * qp->room)
		size *= 2;
	qp->stride = (uint32_t)(sizeof(struct mig_recv) + qp->cap.max_recv_sge * sizeof(struct ibv_sge));
	qp->ring = ring_new(size, qp->stride);
	qp->ring_mask = size - 1;
	return qp->ring ? 0 : ENOMEM;
}

static __attribute__((noinline)) void record_list(struct mig_qp *qp, const struct ibv_recv_wr *wr,
						  const struct ibv_recv_wr *end)
{
	uint32_t tail = qp->tail;

	for (; wr != end; wr = wr->next) {
		struct mig_recv *recv = entry(qp, qp->ring, qp->ring_mask, tail++);

		recv->wr_id = wr->wr_id;
		recv->num_sge = (uint32_t)wr->num_sge;
		if (MIG_LIKELY(wr->num_sge == 1))
			mig_copy_sge(&recv->sges[0], &wr->sg_list[0]);
		else
			memcpy(recv->sges, wr->sg_list, (size_t)wr->num_sge * sizeof(recv->sges[0]));
	}
	__atomic_store_n(&qp->tail, tail, __ATOMIC_RELAXED);
}

/* What was posted up to `end`. The ring has room for it: there was room for a whole queue. */
static inline void record(struct mig_qp *qp, const struct ibv_recv_wr *wr, const struct ibv_recv_wr *end)
{
	if (MIG_UNLIKELY(wr == end))
		return;
	if (MIG_LIKELY(wr->next == end && wr->num_sge == 1)) {
		struct mig_recv *recv = entry(qp, qp->ring, qp->ring_mask, qp->tail);

		recv->wr_id = wr->wr_id;
		recv->num_sge = 1;
		mig_copy_sge(&recv->sges[0], &wr->sg_list[0]);
		__atomic_store_n(&qp->tail, qp->tail + 1, __ATOMIC_RELAXED);
		/* With many QPs in turn the next entry has left the near caches by its time: it is fetched now. */
		__builtin_prefetch((char *)recv + qp->stride, 1);
	} else {
		record_list(qp, wr, end);
	}
}

#define RECV_FEW 4

/* Most lists hold one request of a few entries: without the loops of the general case. */
static int recv_one_translated(struct mig_qp *qp, const struct mig_keymap *lkeys, struct ibv_recv_wr *wr,
			       struct ibv_recv_wr **bad)
{
	struct ibv_recv_wr copy, *failed;
	struct ibv_sge sges[RECV_FEW];

	copy.wr_id = wr->wr_id;
	copy.next = NULL;
	copy.sg_list = sges;
	copy.num_sge = wr->num_sge;
	mig_translate_sges(lkeys, sges, wr->sg_list, wr->num_sge);
	int error = qp->post_recv(qp->real, &copy, &failed);
	if (MIG_UNLIKELY(error)) {
		if (bad)
			*bad = wr;
		return error;
	}
	record(qp, wr, NULL);
	return 0;
}

static __attribute__((noinline)) int post_other_keys(struct mig_qp *qp, const struct mig_keymap *lkeys,
						     struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	if (MIG_LIKELY(wr && !wr->next && (unsigned int)wr->num_sge <= RECV_FEW))
		return recv_one_translated(qp, lkeys, wr, bad);

	struct ibv_recv_wr *failed = NULL;
	int error = mig_recv_translated(qp, qp->real, lkeys, wr, &failed);

	record(qp, wr, error ? failed : NULL);
	if (error && bad)
		*bad = failed;
	return error;
}

/* Posts and records. In a section or under the lock, as the ring's writer. */
static inline int recv_now(struct mig_qp *qp, struct mig_context *context, struct ibv_recv_wr *wr,
			   struct ibv_recv_wr **bad)
{
	if (MIG_UNLIKELY(context->lkeys != NULL))
		return post_other_keys(qp, context->lkeys, wr, bad);

	int error = qp->post_recv(qp->real, wr, bad);

	record(qp, wr, MIG_UNLIKELY(error) ? *bad : NULL);
	return error;
}

/*
 * Of a datagram the poller looks where it has been received to, so it is recorded before the device can complete it. What the
 * device refuses then is overwritten.
 */
static int recv_datagrams(struct mig_qp *qp, const struct mig_keymap *lkeys, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct ibv_recv_wr *end = wr, *failed = NULL;
	uint32_t tail = qp->tail, most = qp->room;
	int error = 0;

	for (; end && most && end->num_sge >= 0 && end->num_sge <= (int)qp->cap.max_recv_sge; end = end->next, most--) {
		struct mig_recv *recv = entry(qp, qp->ring, qp->ring_mask, tail++);

		recv->wr_id = end->wr_id;
		recv->num_sge = (uint32_t)end->num_sge;
		for (int i = 0; i < end->num_sge; i++)
			mig_copy_sge(&recv->sges[i], &end->sg_list[i]);
	}
	if (lkeys)
		error = mig_recv_translated(qp, qp->real, lkeys, wr, &failed);
	else
		error = qp->post_recv(qp->real, wr, &failed);
	if (error && !failed)
		failed = wr;
	tail = qp->tail;
	for (const struct ibv_recv_wr *one = wr; one && (!error || one != failed); one = one->next)
		tail++;
	__atomic_store_n(&qp->tail, tail, __ATOMIC_RELAXED);
	if (error && bad)
		*bad = failed;
	return error;
}

static inline int has_room(struct mig_qp *qp)
{
	if (MIG_LIKELY(qp->ring_mask + 1 - (qp->tail - qp->head_seen) >= qp->room))
		return 1;
	qp->head_seen = __atomic_load_n(&qp->head, __ATOMIC_ACQUIRE);
	/* A completion may be polled before its receive is recorded: then head is ahead, and all is free. */
	if ((int32_t)(qp->tail - qp->head_seen) < 0)
		return 1;
	return qp->ring_mask + 1 - (qp->tail - qp->head_seen) >= qp->room;
}

/* More are outstanding than the queue is deep: a device may free a place before its completion is polled. */
static int grow(struct mig_qp *qp)
{
	uint32_t mask = qp->ring_mask;
	char *larger = ring_new((mask + 1) * 2, qp->stride), *old = larger;

	if (!larger)
		return ENOMEM;
	mig_lock(&qp->recv_lock);
	if (qp->ring_mask == mask) {
		uint32_t head = __atomic_load_n(&qp->head, __ATOMIC_ACQUIRE);

		MIG_SET_GATE(qp->recv_fast, NULL);
		if (qp->recv_owner.section)
			mig_synchronize_with(qp->recv_owner.section);
		for (uint32_t i = head; (int32_t)(qp->tail - i) > 0; i++)
			memcpy(entry(qp, larger, mask * 2 + 1, i), entry(qp, qp->ring, mask, i), qp->stride);
		old = qp->ring;
		__atomic_store_n(&qp->ring, larger, __ATOMIC_RELEASE);
		qp->ring_mask = mask * 2 + 1;
	}
	mig_unlock(&qp->recv_lock);
	/* Who polls may look at an entry. */
	if (mig_is_datagram(qp))
		mig_synchronize();
	ring_free(old);
	return 0;
}

/* While the process is parked there is no queue to post to; what the real one would have refused is refused. */
static int record_only(struct mig_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	for (; wr; wr = wr->next) {
		int error = 0;

		if (qp->ibv.state == IBV_QPS_RESET || wr->num_sge < 0 || wr->num_sge > (int)qp->cap.max_recv_sge)
			error = EINVAL;
		else if (qp->tail - __atomic_load_n(&qp->head, __ATOMIC_ACQUIRE) >= qp->cap.max_recv_wr)
			error = ENOMEM;
		if (error) {
			if (bad)
				*bad = wr;
			return error;
		}
		record(qp, wr, wr->next);
	}
	return 0;
}

/* It has no queue of its own to post to, which is the device's to say. */
static int recv_refused(struct mig_qp *qp, struct mig_section *section, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	uint64_t outer = mig_section_enter_nested(section);
	int error = EINVAL;

	if (bad)
		*bad = wr;
	if (!MIG_GATE(mig_context(qp->ibv.context)->parked))
		error = qp->post_recv(qp->real, wr, bad);
	mig_section_leave_nested(section, outer);
	return error;
}

static int recv_slowly(struct mig_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct mig_context *context = mig_context(qp->ibv.context);
	struct mig_section *section = mig_section_get();
	int error = section ? 0 : ENOMEM;

	if (qp->shares && !error)
		return recv_refused(qp, section, wr, bad);
	while (!error) {
		mig_lock(&qp->recv_lock);
		mig_owner_choose(&qp->recv_owner, &qp->recv_fast, section);
		if (has_room(qp))
			break;
		mig_unlock(&qp->recv_lock);
		error = grow(qp);
	}
	if (error) {
		if (bad)
			*bad = wr;
		return error;
	}
	if (qp->recv_parked) {
		error = record_only(qp, wr, bad);
	} else {
		error = mig_is_datagram(qp) ? recv_datagrams(qp, context->lkeys, wr, bad) : recv_now(qp, context, wr, bad);
		if (qp->recv_owner.section == section && !qp->recv_closed && !mig_is_datagram(qp) && !mig_sections_usable())
			MIG_SET_GATE(qp->recv_fast, section);
	}
	mig_unlock(&qp->recv_lock);
	return error;
}

int mig_post_recv(struct ibv_qp *ibv, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct mig_qp *qp = MIG_CONTAINER(ibv, struct mig_qp, ibv);
	struct mig_section *section = mig_section_mine;

	if (MIG_UNLIKELY(!mig_section_is_free(section)))
		return recv_slowly(qp, wr, bad);
	mig_section_enter(section);
	if (MIG_UNLIKELY(MIG_GATE(qp->recv_fast) != section || !has_room(qp))) {
		mig_section_leave(section);
		return recv_slowly(qp, wr, bad);
	}
	int error = recv_now(qp, MIG_CONTAINER(ibv->context, struct mig_context, verbs.context), wr, bad);
	mig_section_leave(section);
	return error;
}

void mig_recv_close(struct mig_qp *qp)
{
	MIG_LOCKED(&qp->recv_lock);
	qp->recv_closed = 1;
	MIG_SET_GATE(qp->recv_fast, NULL);
}

void mig_recv_park(struct mig_qp *qp)
{
	MIG_LOCKED(&qp->recv_lock);
	qp->recv_parked = 1;
	qp->parked_at = qp->tail;
}

void mig_recv_flushed(struct mig_qp *qp)
{
	MIG_LOCKED(&qp->recv_lock);
	__atomic_store_n(&qp->head, qp->parked_at, __ATOMIC_RELEASE);
}

void mig_recv_clear(struct mig_qp *qp)
{
	MIG_LOCKED(&qp->recv_lock);
	MIG_SET_GATE(qp->recv_fast, NULL);
	if (qp->recv_owner.section)
		mig_synchronize_with(qp->recv_owner.section);
	qp->head_seen = qp->tail = __atomic_load_n(&qp->head, __ATOMIC_ACQUIRE);
}

int mig_recv_repost(struct mig_qp *qp, struct ibv_qp *real, const struct mig_keymap *lkeys, uint32_t *from)
{
	for (; (int32_t)(qp->tail - *from) > 0; ++*from) {
		struct mig_recv *recv = entry(qp, qp->ring, qp->ring_mask, *from);
		struct ibv_recv_wr wr = { .wr_id = recv->wr_id,
					  .sg_list = recv->sges,
					  .num_sge = (int)recv->num_sge };
		struct ibv_recv_wr *bad = NULL;
		int error = mig_recv_translated(qp, real, lkeys, &wr, &bad);

		if (error)
			return error;
	}
	return 0;
}

int mig_recv_open(struct mig_qp *qp)
{
	MIG_LOCKED(&qp->recv_lock);
	int error = qp->recv_parked
			    ? mig_recv_repost(qp, qp->real, mig_context(qp->ibv.context)->lkeys, &qp->parked_at)
			    : 0;
	qp->recv_parked = qp->recv_closed = 0;
	return error;
}
