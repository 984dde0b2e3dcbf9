/*
 * Posting receives, and remembering them: after a move the ones that no message has used yet are posted again.
 *
 * The ring has one writer at its tail, which is whoever posts: the one thread that qp->recv_fast names, or the
 * holder of the lock: base/owner.h. The head is written by the poller.
 *
 * What is posted is recorded before the device has it, so that a completion is always one of a receive that is in the ring;
 * what the device refuses is taken out again.
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
#define RING_HEAD MIG_LINE

/* An entry is written before anybody reads it. Entries begin with a line, so that the usual ones lie in one. */
static char *ring_new(uint32_t size, uint32_t stride)
{
	void *memory = NULL;

	if (posix_memalign(&memory, MIG_LINE, RING_HEAD + (size_t)size * stride))
		return NULL;
	*(uint32_t *)memory = size - 1;
	return (char *)memory + RING_HEAD;
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

/*
 * The next one is recorded at that place of all; finds the entries that can be written one after the other from there on. How
 * many are free in all. As the ring's writer.
 */
static uint32_t go_on_at(struct mig_qp *qp, uint32_t tail)
{
	uint32_t size = qp->ring_mask + 1, to_end = size - (tail & qp->ring_mask);
	uint32_t room = size - (tail - __atomic_load_n(&qp->head, __ATOMIC_ACQUIRE)), next = room < to_end ? room : to_end;
	char *at = (char *)entry(qp, qp->ring, qp->ring_mask, tail);

	/* Odd while the three do not belong together: mig_recv_tail. */
	__atomic_store_n(&qp->turn, qp->turn + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&qp->at, at, __ATOMIC_RELEASE);
	__atomic_store_n(&qp->stop, at + (size_t)next * qp->stride, __ATOMIC_RELEASE);
	__atomic_store_n(&qp->until, tail + next, __ATOMIC_RELEASE);
	__atomic_store_n(&qp->turn, qp->turn + 1, __ATOMIC_RELEASE);
	return room;
}

static uint32_t find_room(struct mig_qp *qp)
{
	return go_on_at(qp, mig_recv_tail(qp));
}

uint32_t mig_recv_tail(const struct mig_qp *qp)
{
	uint32_t turn, until;
	char *at, *stop;

	do {
		turn = __atomic_load_n(&qp->turn, __ATOMIC_ACQUIRE);
		at = __atomic_load_n(&qp->at, __ATOMIC_ACQUIRE);
		stop = __atomic_load_n(&qp->stop, __ATOMIC_ACQUIRE);
		until = __atomic_load_n(&qp->until, __ATOMIC_ACQUIRE);
	} while (turn & 1 || turn != __atomic_load_n(&qp->turn, __ATOMIC_RELAXED));
	return qp->stride ? until - (uint32_t)((size_t)(stop - at) / qp->stride) : 0;
}

int mig_recv_init(struct mig_qp *qp)
{
	uint32_t size = 16;

	if (qp->shares)
		return 0;
	/* Twice the queue's depth: with a full queue the poster looks once for so many receives how far the poller is. */
	while (size < 2 * qp->cap.max_recv_wr)
		size *= 2;
	/* One entry at least, which is recorded before the device refuses it. */
	qp->stride = (uint32_t)(sizeof(struct mig_recv) +
				(qp->cap.max_recv_sge ? qp->cap.max_recv_sge : 1) * sizeof(struct ibv_sge));
	qp->ring = ring_new(size, qp->stride);
	qp->ring_mask = size - 1;
	if (!qp->ring)
		return ENOMEM;
	go_on_at(qp, 0);
	return 0;
}

/* The usual request, of one scatter entry, where qp->at is. */
static inline __attribute__((always_inline)) void record_one(struct mig_qp *qp, const struct ibv_recv_wr *wr)
{
	struct mig_recv *recv = (struct mig_recv *)(void *)qp->at;

	recv->wr_id = wr->wr_id;
	recv->num_sge = 1;
	mig_copy_sge(&recv->sges[0], &wr->sg_list[0]);
	/* With many QPs in turn the next line has left the near caches by its time: it is fetched now. */
	__builtin_prefetch((char *)recv + MIG_LINE, 1);
	__atomic_store_n(&qp->at, qp->at + qp->stride, __ATOMIC_RELAXED);
}

/* The one that record_one has recorded just now is none. */
static void take_back(struct mig_qp *qp)
{
	__atomic_store_n(&qp->at, qp->at - qp->stride, __ATOMIC_RELAXED);
}

static int is_impossible(const struct mig_qp *qp, const struct ibv_recv_wr *wr)
{
	return wr->num_sge < 0 || wr->num_sge > (int)qp->cap.max_recv_sge;
}

/* At most `most`, for which there must be room. One that the device will refuse has none of its entries, as it has no place here. */
static void record(struct mig_qp *qp, const struct ibv_recv_wr *wr, uint32_t most)
{
	uint32_t tail = mig_recv_tail(qp), end = tail + most;

	for (; wr && tail != end; wr = wr->next, tail++) {
		struct mig_recv *recv = entry(qp, qp->ring, qp->ring_mask, tail);
		int entries = is_impossible(qp, wr) ? 0 : wr->num_sge;

		recv->wr_id = wr->wr_id;
		recv->num_sge = (uint32_t)entries;
		for (int i = 0; i < entries; i++)
			mig_copy_sge(&recv->sges[i], &wr->sg_list[i]);
	}
	go_on_at(qp, tail);
}

/* How many a call is about. Some devices take more than they say. */
static uint32_t count_list(const struct ibv_recv_wr *wr)
{
	uint32_t count = 0;

	for (; wr; wr = wr->next)
		count++;
	return count;
}

/* Records and posts. There must be room for the list. In a section or under the lock, as the ring's writer. */
static int recv_list(struct mig_qp *qp, const struct mig_keymap *lkeys, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	uint32_t tail = mig_recv_tail(qp);
	struct ibv_recv_wr *failed = wr;

	record(qp, wr, count_list(wr));
	int error = lkeys ? mig_recv_translated(qp, qp->recv_real, lkeys, wr, &failed) : qp->post_recv(qp->recv_real, wr, &failed);
	if (MIG_LIKELY(!error))
		return 0;
	for (const struct ibv_recv_wr *one = wr; one && one != failed; one = one->next)
		tail++;
	go_on_at(qp, tail);
	if (bad)
		*bad = failed;
	return error;
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
		uint32_t head = __atomic_load_n(&qp->head, __ATOMIC_ACQUIRE), tail;

		MIG_SET_GATE(qp->recv_fast, NULL);
		if (qp->recv_owner.section)
			mig_synchronize_with(qp->recv_owner.section);
		tail = mig_recv_tail(qp);
		for (uint32_t i = head; (int32_t)(tail - i) > 0; i++)
			memcpy(entry(qp, larger, mask * 2 + 1, i), entry(qp, qp->ring, mask, i), qp->stride);
		old = qp->ring;
		__atomic_store_n(&qp->ring, larger, __ATOMIC_RELEASE);
		qp->ring_mask = mask * 2 + 1;
		go_on_at(qp, tail);
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

		if (qp->ibv.state == IBV_QPS_RESET || is_impossible(qp, wr))
			error = EINVAL;
		else if (mig_recv_outstanding(qp) >= qp->cap.max_recv_wr)
			error = ENOMEM;
		if (error) {
			if (bad)
				*bad = wr;
			return error;
		}
		record(qp, wr, 1);
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
	struct mig_section *section = mig_section_get();
	int error = section ? 0 : ENOMEM;
	uint32_t count = count_list(wr);

	if (qp->shares && !error)
		return recv_refused(qp, section, wr, bad);
	while (!error) {
		mig_lock(&qp->recv_lock);
		mig_owner_choose(&qp->recv_owner, &qp->recv_fast, section);
		if (qp->recv_parked || find_room(qp) >= count)
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
		/* Under the lock: they are exchanged, and the old ones freed, while it is parked. */
		const struct mig_keymap *lkeys = mig_context(qp->ibv.context)->lkeys;

		error = recv_list(qp, lkeys, wr, bad);
		if (qp->recv_owner.section == section && !qp->recv_closed && !mig_sections_usable())
			MIG_SET_GATE(qp->recv_fast, lkeys ? mig_section_second(section) : section);
	}
	mig_unlock(&qp->recv_lock);
	return error;
}

#define RECV_FEW 4

/* One request of few entries: without the loops of the general case. There must be room for it. */
static int recv_one_translated(struct mig_qp *qp, const struct mig_keymap *lkeys, struct ibv_recv_wr *wr,
			       struct ibv_recv_wr **bad)
{
	struct ibv_recv_wr copy, *failed;
	struct ibv_sge sges[RECV_FEW];

	if (MIG_LIKELY(wr->num_sge == 1))
		record_one(qp, wr);
	else
		record(qp, wr, 1);
	copy.wr_id = wr->wr_id;
	copy.next = NULL;
	copy.sg_list = sges;
	copy.num_sge = wr->num_sge;
	mig_translate_sges(lkeys, sges, wr->sg_list, wr->num_sge);
	int error = qp->post_recv(qp->recv_real, &copy, &failed);
	if (MIG_UNLIKELY(error)) {
		/* Not take_back: record has gone on at the ring's beginning already, if this was its end. */
		go_on_at(qp, mig_recv_tail(qp) - 1);
		if (bad)
			*bad = wr;
	}
	return error;
}

/* What is not of one entry and alone in its list, or has other keys, or is at an end of the ring. Ends the caller's section. */
static __attribute__((noinline)) int recv_unusually(struct mig_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad,
						    struct mig_section *section)
{
	const struct mig_section *fast = MIG_GATE(qp->recv_fast);
	const struct mig_keymap *lkeys;
	int error;

	if (MIG_UNLIKELY(fast != section && fast != mig_section_second(section)))
		goto slowly;
	/* Not before the gate was seen to be open: they are exchanged while it is shut. */
	lkeys = MIG_CONTAINER(qp->ibv.context, struct mig_context, verbs.context)->lkeys;
	if (MIG_LIKELY(lkeys && wr && !wr->next && (unsigned int)wr->num_sge <= RECV_FEW)) {
		if (MIG_UNLIKELY(qp->at == qp->stop) && !find_room(qp))
			goto slowly;
		error = recv_one_translated(qp, lkeys, wr, bad);
	} else {
		if (find_room(qp) < count_list(wr))
			goto slowly;
		error = recv_list(qp, lkeys, wr, bad);
	}
	mig_section_leave(section);
	return error;

slowly:
	mig_section_leave(section);
	return recv_slowly(qp, wr, bad);
}

int mig_post_recv(struct ibv_qp *ibv, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct mig_qp *qp = MIG_CONTAINER(ibv, struct mig_qp, ibv);
	struct mig_section *section = mig_section_mine;

	if (MIG_UNLIKELY(!mig_section_is_free(section)))
		return recv_slowly(qp, wr, bad);
	mig_section_enter(section);
	if (MIG_UNLIKELY(MIG_GATE(qp->recv_fast) != section || qp->at == qp->stop || !wr || wr->next || wr->num_sge != 1))
		return recv_unusually(qp, wr, bad, section);
	record_one(qp, wr);
	int error = qp->post_recv(qp->recv_real, wr, bad);
	if (MIG_UNLIKELY(error))
		take_back(qp);
	/* The caller's own, which is the owner's as long as it is inside: so it need not be kept over the call. */
	mig_section_leave(qp->recv_owner.section);
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
	qp->parked_at = mig_recv_tail(qp);
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
	if (!qp->shares)
		go_on_at(qp, __atomic_load_n(&qp->head, __ATOMIC_ACQUIRE));
}

int mig_recv_repost(struct mig_qp *qp, struct ibv_qp *real, const struct mig_keymap *lkeys, uint32_t *from)
{
	uint32_t tail = mig_recv_tail(qp);

	for (; (int32_t)(tail - *from) > 0; ++*from) {
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
