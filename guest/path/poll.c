/*
 * Polling completion queues.
 *
 * The fast way: one thread polls the real queue without a lock of ours. It may, as long as cq->fast is its own
 * counter: base/owner.h. While something is going on (a QP quiesced, markers in the queue, completions kept in the ring,
 * the process parked) nobody is fast.
 */
#include "path/poll.h"

#include <errno.h>

#include "base/likely.h"
#include "base/section.h"
#include "path/datagram.h"
#include "path/hold.h"
#include "path/kept.h"
#include "path/recv.h"
#include "path/ring.h"
#include "path/slots.h"
#include "path/window.h"
#include "shadow/find.h"

/* Receives were completed: their places in the QP's ring are free. Only the poller of the CQ writes head. */
static inline void count_receives(struct mig_qp *qp, uint32_t count)
{
	__atomic_store_n(&qp->head, qp->head + count, __ATOMIC_RELEASE);
}

static __attribute__((noinline)) void receive_datagram(const struct mig_context *context, struct mig_qp *qp, struct ibv_wc *wc)
{
	int differs = MIG_GATE(context->translate) & MIG_TRANSLATE_DATAGRAMS;

	if (qp->shares) {
		const struct mig_slot *slot = (const struct mig_slot *)(uintptr_t)wc->wr_id;

		if (differs)
			mig_datagram_received(context, wc, slot->sges, slot->num_sge);
		mig_slot_complete(wc);
	} else {
		const struct mig_recv *recv = mig_recv_at(qp, qp->head);

		if (differs)
			mig_datagram_received(context, wc, recv->sges, recv->num_sge);
		count_receives(qp, 1);
	}
}

static inline void receive_one(const struct mig_context *context, struct mig_qp *qp, struct ibv_wc *wc)
{
	if (MIG_LIKELY(qp->receives == MIG_RECEIVES_FROM_ITS_RING))
		count_receives(qp, 1);
	else if (qp->receives == MIG_RECEIVES_FROM_SLOTS)
		mig_slot_complete(wc);
	else
		receive_datagram(context, qp, wc);
}

static inline __attribute__((always_inline)) void account(const struct mig_context *context, struct ibv_wc *wc)
{
	struct mig_qp *qp = mig_qp_by_pqpn(context, wc->qp_num);

	if (!qp) {
		mig_slot_complete_if_one(context, wc);
		return;
	}
	if (MIG_UNLIKELY(wc->status != IBV_WC_SUCCESS)) {
		__atomic_store_n(&qp->broken, 1, __ATOMIC_RELAXED);
		if (qp->shares)
			mig_slot_complete_if_one(context, wc);
	} else {
		if (wc->opcode & IBV_WC_RECV) {
			receive_one(context, qp, wc);
			mig_window_received(context, qp, wc);
		}
		if (wc->src_qp == qp->dest_pqpn)
			wc->src_qp = qp->attr.dest_qp_num;
	}
	wc->qp_num = qp->ibv.qp_num;
}

static inline int is_plain(const struct ibv_wc *wc, unsigned int opcode_bit)
{
	return MIG_LIKELY(wc->status == IBV_WC_SUCCESS) && (wc->opcode & IBV_WC_RECV) == opcode_bit;
}

/* Looks at completions one by one. */
static inline __attribute__((always_inline)) void account_all(const struct mig_cq *cq, struct ibv_wc *wc, const struct ibv_wc *end)
{
	const struct mig_context *context = MIG_CONTAINER(cq->ibv.context, struct mig_context, verbs.context);

	while (wc != end)
		account(context, wc++);
}

/* The unusual ones, and what follows them. Ends the caller's section; a function of its own, as it would else cost the usual
 * way its registers. `count` is what the caller returns. */
static __attribute__((noinline)) int account_rest(const struct mig_cq *cq, struct mig_section *section, struct ibv_wc *wc,
						  const struct ibv_wc *end, int count)
{
	account_all(cq, wc, end);
	mig_section_leave(section);
	return count;
}

/*
 * While numbers are the same a successful send needs nothing, and a receive only to be counted: of a run of them for one QP the
 * number is added once. Ends the caller's section, likewise.
 */
static __attribute__((noinline)) int account_runs(const struct mig_cq *cq, struct mig_section *section, struct ibv_wc *wc,
						  int count)
{
	const struct mig_context *context = MIG_CONTAINER(cq->ibv.context, struct mig_context, verbs.context);
	const struct ibv_wc *end = wc + count;

	while (wc != end) {
		if (is_plain(wc, 0)) {
			wc++;
			continue;
		}
		if (MIG_UNLIKELY(!is_plain(wc, IBV_WC_RECV)))
			break;
		uint32_t qp_num = wc->qp_num;
		struct mig_qp *qp = mig_qp_near(context, qp_num);
		uint32_t near = __atomic_load_n(&qp->near, __ATOMIC_RELAXED);

		if (MIG_LIKELY(near == qp_num)) {
			uint32_t run = 0;

			do {
				run++;
				wc++;
			} while (wc != end && wc->qp_num == qp_num && is_plain(wc, IBV_WC_RECV));
			count_receives(qp, run);
		} else if (near == (qp_num | MIG_QPN_FROM_SLOTS)) {
			mig_slot_complete(wc++);
		} else {
			break;
		}
	}
	return account_rest(cq, section, wc, end, count);
}

static int poll_cq_slowly(struct mig_cq *cq, int entries, struct ibv_wc *wc);

/* Who may go this way, while completions are looked at. Ends the caller's section. */
static __attribute__((noinline)) int poll_looking(struct mig_cq *cq, int entries, struct ibv_wc *wc, struct mig_section *section)
{
	if (MIG_UNLIKELY(MIG_GATE(cq->fast) != mig_section_second(section))) {
		mig_section_leave(section);
		return poll_cq_slowly(cq, entries, wc);
	}
	int count = cq->poll(cq->real, entries, wc);

	if (count > 0)
		account_all(cq, wc, wc + count);
	mig_section_leave(section);
	return count;
}

int mig_poll_cq(struct ibv_cq *ibv, int entries, struct ibv_wc *wc)
{
	struct mig_cq *cq = MIG_CONTAINER(ibv, struct mig_cq, ibv);
	struct mig_section *section = mig_section_mine;

	if (MIG_UNLIKELY(!mig_section_is_free(section)))
		return poll_cq_slowly(cq, entries, wc);
	mig_section_enter(section);
	if (MIG_UNLIKELY(MIG_GATE(cq->fast) != section))
		return poll_looking(cq, entries, wc, section);

	int count = cq->poll(cq->real, entries, wc);
	/* The caller's own, which is the owner's as long as it is inside: so it need not be kept over the call. */
	section = cq->owner.section;
	if (count == 1 && MIG_LIKELY(wc->status == IBV_WC_SUCCESS)) {
		/* One alone, as that is how most are found: the beginning of account_runs. */
		if (MIG_LIKELY(wc->opcode & IBV_WC_RECV)) {
			uint32_t qp_num = wc->qp_num, near;
			struct mig_qp *qp = mig_qp_near(MIG_CONTAINER(cq->ibv.context, struct mig_context, verbs.context),
							qp_num);

			near = __atomic_load_n(&qp->near, __ATOMIC_RELAXED);
			if (MIG_LIKELY(near == qp_num)) {
				count_receives(qp, 1);
				mig_section_leave(section);
				return count;
			}
			if (near != (qp_num | MIG_QPN_FROM_SLOTS))
				return account_runs(cq, section, wc, count);
			mig_slot_complete(wc);
		}
	} else if (count > 0) {
		return account_runs(cq, section, wc, count);
	}
	mig_section_leave(section);
	return count;
}

/* Whether a completion is a marker's; it is taken note of. Must hold the lock. */
static int is_marker(struct mig_context *context, struct mig_cq *cq, const struct ibv_wc *wc)
{
	struct mig_qp *qp = cq->markers ? mig_qp_by_pqpn(context, wc->qp_num) : NULL;

	if (!qp)
		return 0;
	if (qp->recv_marker == MIG_MARKER_POSTED && wc->wr_id == qp->recv_marker_id) {
		qp->recv_marker = MIG_MARKER_DONE;
		cq->markers--;
		return 1;
	}
	if (qp->marker != MIG_MARKER_POSTED || wc->wr_id != qp->marker_id)
		return 0;
	qp->marker = wc->status == IBV_WC_SUCCESS ? MIG_MARKER_DONE : MIG_MARKER_FAILED;
	if (wc->status != IBV_WC_SUCCESS)
		__atomic_store_n(&qp->broken, 1, __ATOMIC_RELAXED);
	cq->markers--;
	return 1;
}

/* Polls the real queue and drops what is not the application's. Must hold the lock. */
static int poll_filtered(struct mig_cq *cq, struct mig_section *section, int entries, struct ibv_wc *wc, int last)
{
	struct mig_context *context = mig_context(cq->ibv.context);
	int kept = 0, count;

	if (MIG_GATE(context->parked) && !last)
		return 0;
	do {
		int wanted = entries - kept;

		uint64_t outer = mig_section_enter_nested(section);

		count = cq->poll(cq->real, wanted, wc + kept);
		int first = kept;
		for (int i = 0; i < count; i++) {
			struct ibv_wc one = wc[first + i];

			if (is_marker(context, cq, &one))
				continue;
			account(context, &one);
			wc[kept++] = one;
		}
		mig_section_leave_nested(section, outer);
		if (count < 0 && !kept)
			return count;
		if (count < wanted)
			break;
	} while (kept < entries);
	return kept;
}

/* QPs whose kept sends did not all fit: there may be room now. Must hold no lock. */
static void flush_senders(struct mig_cq *cq)
{
	struct mig_context *context = mig_context(cq->ibv.context);
	struct mig_send *done = NULL;

	mig_lock(&context->lock);
	MIG_EACH(&context->qps, qp, struct mig_qp, link)
		if (qp->ibv.send_cq == &cq->ibv && MIG_GATE(qp->send_gate) & MIG_GATE_FLUSH)
			mig_send_flush(qp, &done);
	mig_unlock(&context->lock);
	mig_send_free(done);
}

static int poll_cq_slowly(struct mig_cq *cq, int entries, struct ibv_wc *wc)
{
	struct mig_section *section = mig_section_get();
	int count, flush;

	if (!section)
		return -1;
	mig_lock(&cq->lock);
	mig_owner_choose(&cq->owner, &cq->fast, section);
	count = mig_cq_ring_take(cq, entries, wc);
	if (count < entries) {
		int more = poll_filtered(cq, section, entries - count, wc + count, 0);

		if (more > 0 || !count)
			count += more;
	}
	flush = cq->gated > 0 && __atomic_load_n(&mig_context(cq->ibv.context)->flushing, __ATOMIC_RELAXED);
	if (!cq->gated && !cq->markers && cq->ring_head == cq->ring_tail && cq->owner.section == section &&
	    !mig_sections_usable())
		MIG_SET_GATE(cq->fast, MIG_GATE(mig_context(cq->ibv.context)->translate) ? mig_section_second(section) : section);
	mig_unlock(&cq->lock);
	if (flush)
		flush_senders(cq);
	return count;
}

#define COLLECT 64

int mig_cq_collect(struct mig_cq *cq, int last)
{
	struct mig_section *section = mig_section_get();
	/* That of an XRC domain's targets: nothing comes there. */
	int count = cq->real ? COLLECT : 0;

	while (count == COLLECT) {
		struct ibv_wc wc[COLLECT];
		int error = section ? mig_cq_ring_reserve(cq, COLLECT) : ENOMEM;

		if (error)
			return error;
		MIG_LOCKED(&cq->lock);
		count = poll_filtered(cq, section, COLLECT, wc, last);
		for (int i = 0; i < count; i++)
			mig_cq_ring_put(cq, &wc[i]);
		if (count < 0)
			return EIO;
	}
	return 0;
}

int mig_cq_collect_shared(struct mig_cq *cq)
{
	mig_cq_gate(cq, 1);
	/* From here on nobody is in a poll that does not take the lock. */
	mig_synchronize();
	int error = mig_cq_collect(cq, 0);
	mig_cq_gate(cq, -1);
	return error;
}
