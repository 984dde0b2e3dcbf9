/*
 * Posting sends.
 *
 * The fast way looks at one word and calls the real function with what the application gave. It counts nothing:
 * whether the queue is empty is found out when it matters, with a marker behind the last send (move/quiesce.c).
 */
#include "path/send.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/likely.h"
#include "base/section.h"
#include "path/ring.h"
#include "path/translate.h"
#include "shadow/cq.h"
#include "shadow/mr.h"

#define SEND_BATCH 16
#define SEND_SGES 256

/* The keys of one work request in the numbers of the moment. */
static void send_translate_keys(const struct mig_qp *qp, struct ibv_send_wr *wr)
{
	switch ((int)wr->opcode) {
	case IBV_WR_RDMA_WRITE:
	case IBV_WR_RDMA_WRITE_WITH_IMM:
	case IBV_WR_RDMA_READ:
	case 14: /* IBV_WR_FLUSH, since 47 */
	case IBV_WR_ATOMIC_WRITE:
		wr->wr.rdma.rkey = mig_keymap_get(qp->rkeys, wr->wr.rdma.rkey);
		break;
	case IBV_WR_ATOMIC_CMP_AND_SWP:
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		wr->wr.atomic.rkey = mig_keymap_get(qp->rkeys, wr->wr.atomic.rkey);
		break;
	case IBV_WR_SEND_WITH_INV:
		wr->invalidate_rkey = mig_keymap_get(qp->rkeys, wr->invalidate_rkey);
		break;
	case IBV_WR_BIND_MW:
		wr->bind_mw.bind_info.mr = mig_real_mr(wr->bind_mw.bind_info.mr);
		break;
	default:
		break;
	}
}

/*
 * Copies in batches, as the application's requests are its own and may be shared. A list longer than a batch may
 * be interleaved with another thread's, which verbs do not promise against. In a section or under the lock.
 */
static int send_translated(struct mig_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	const struct mig_keymap *lkeys = mig_context(qp->ibv.context)->lkeys;

	while (wr) {
		struct ibv_send_wr copies[SEND_BATCH], *originals[SEND_BATCH], *failed = NULL;
		struct ibv_sge sges[SEND_SGES];
		int count = 0, used = 0;

		for (; wr && count < SEND_BATCH; wr = wr->next) {
			/* A list too long for the queue is the real library's to refuse, before it is read. */
			int listed = wr->num_sge > (int)qp->cap.max_send_sge || wr->num_sge < 0 ? 0 : wr->num_sge;

			if (used + listed > SEND_SGES)
				break;
			originals[count] = wr;
			copies[count] = *wr;
			if (listed) {
				copies[count].sg_list = sges + used;
				for (int i = 0; i < listed; i++) {
					sges[used] = wr->sg_list[i];
					sges[used].lkey = mig_keymap_get(lkeys, sges[used].lkey);
					used++;
				}
			}
			send_translate_keys(qp, &copies[count]);
			copies[count].next = NULL;
			if (count)
				copies[count - 1].next = &copies[count];
			count++;
		}
		int error = qp->post_send(qp->real, copies, &failed);
		if (error) {
			if (bad)
				*bad = failed >= copies && failed < copies + count ? originals[failed - copies]
										   : originals[0];
			return error;
		}
	}
	return 0;
}

static int send_now(struct mig_qp *qp, uint32_t gate, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	return gate & MIG_GATE_TRANSLATE ? send_translated(qp, wr, bad) : qp->post_send(qp->real, wr, bad);
}

/* Pollers look whether there is something to flush, without a walk over all QPs. Must hold the lock. */
static void set_gate(struct mig_qp *qp, uint32_t gate)
{
	uint32_t *flushing = &mig_context(qp->ibv.context)->flushing;

	if (gate & ~qp->send_gate & MIG_GATE_FLUSH)
		__atomic_add_fetch(flushing, 1, __ATOMIC_RELAXED);
	else if (~gate & qp->send_gate & MIG_GATE_FLUSH)
		__atomic_sub_fetch(flushing, 1, __ATOMIC_RELAXED);
	MIG_SET_GATE(qp->send_gate, gate);
}

/* The gate's bits change under the lock; sections look at the whole word. */
void mig_send_gate(struct mig_qp *qp, uint32_t set, uint32_t clear)
{
	MIG_LOCKED(&qp->send_lock);
	set_gate(qp, (qp->send_gate & ~clear) | set);
}

void mig_send_free(struct mig_send *list)
{
	while (list) {
		struct mig_send *next = list->next;

		free(list);
		list = next;
	}
}

/* A copy of one request with everything it points at. NULL: *error says why. */
static struct mig_send *keep(const struct mig_qp *qp, const struct ibv_send_wr *wr, int *error)
{
	size_t inlined = 0;

	if (wr->num_sge < 0 || wr->num_sge > (int)qp->cap.max_send_sge) {
		*error = EINVAL;
		return NULL;
	}
	if (wr->send_flags & IBV_SEND_INLINE) {
		for (int i = 0; i < wr->num_sge; i++)
			inlined += wr->sg_list[i].length;
		if (inlined > qp->cap.max_inline_data) {
			*error = EINVAL;
			return NULL;
		}
	}

	struct mig_send *send = malloc(sizeof(*send) + (size_t)(wr->num_sge + 1) * sizeof(send->sges[0]) + inlined);
	if (!send) {
		*error = ENOMEM;
		return NULL;
	}
	send->next = NULL;
	send->wr = *wr;
	send->wr.next = NULL;
	send->wr.sg_list = send->sges;
	if (wr->num_sge)
		memcpy(send->sges, wr->sg_list, (size_t)wr->num_sge * sizeof(send->sges[0]));
	if (wr->send_flags & IBV_SEND_INLINE && wr->num_sge) {
		/* The application may reuse its buffers as soon as the call has returned. */
		char *data = (char *)&send->sges[wr->num_sge + 1], *end = data;

		for (int i = 0; i < wr->num_sge; i++) {
			memcpy(end, (void *)(uintptr_t)wr->sg_list[i].addr, wr->sg_list[i].length);
			end += wr->sg_list[i].length;
		}
		send->sges[0] = (struct ibv_sge){ .addr = (uintptr_t)data, .length = (uint32_t)inlined };
		send->wr.num_sge = 1;
	}
	return send;
}

#define QUIESCED (MIG_GATE_SHADOW | MIG_GATE_FLUSH)

/* Keeps a list; -1 if the gate has been opened meanwhile. */
static int keep_all(struct mig_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct mig_send *first = NULL, **end = &first;
	struct ibv_send_wr *one;
	int error = 0;

	/* The copies are made before the lock is taken: an allocator may call back into verbs. */
	for (one = wr; one; one = one->next) {
		*end = keep(qp, one, &error);
		if (!*end)
			break;
		end = &(*end)->next;
	}

	mig_lock(&qp->send_lock);
	if (!(qp->send_gate & QUIESCED)) {
		mig_unlock(&qp->send_lock);
		mig_send_free(first);
		return -1;
	}
	for (one = wr; first; one = one->next) {
		/* As much as the real queue would hold. */
		if (qp->kept_count >= qp->cap.max_send_wr) {
			error = ENOMEM;
			break;
		}
		struct mig_send *send = first;

		first = first->next;
		send->next = NULL;
		*qp->kept_end = send;
		qp->kept_end = &send->next;
		qp->kept_count++;
	}
	mig_unlock(&qp->send_lock);
	mig_send_free(first);
	if (error && bad)
		*bad = one;
	return error;
}

static int send_slowly(struct mig_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct mig_section *section = mig_section_get();

	if (!section) {
		if (bad)
			*bad = wr;
		return ENOMEM;
	}
	for (;;) {
		uint32_t gate = MIG_GATE(qp->send_gate);

		if (gate & MIG_GATE_FRESH)
			mig_send_gate(qp, 0, MIG_GATE_FRESH);
		if (gate & QUIESCED) {
			int result = keep_all(qp, wr, bad);

			if (result >= 0 && gate & MIG_GATE_FLUSH) {
				struct mig_send *done = NULL;

				mig_send_flush(qp, &done);
				mig_send_free(done);
			}
			if (result >= 0)
				return result;
			continue;
		}
		mig_section_enter(section);
		gate = MIG_GATE(qp->send_gate);
		if (gate & (QUIESCED | MIG_GATE_FRESH)) {
			mig_section_leave(section);
			continue;
		}
		int result = send_now(qp, gate, wr, bad);
		mig_section_leave(section);
		return result;
	}
}

#define SEND_FEW 4

/*
 * The usual requests alone in their list: without the loops of the general case, and member by member, because a wide
 * load of what the application has just written in parts would wait for all of it. Ends the caller's section; a function
 * of its own, as the way of those who have not moved would else save its registers.
 */
static __attribute__((noinline)) int send_one_translated(struct mig_qp *qp, struct ibv_send_wr *wr,
							 struct ibv_send_wr **bad, struct mig_section *section)
{
	const struct mig_keymap *lkeys =
		MIG_CONTAINER(qp->ibv.context, struct mig_context, verbs.context)->lkeys;
	struct ibv_send_wr copy, *failed;
	struct ibv_sge sges[SEND_FEW];

	if (!wr || wr->next || (unsigned int)wr->num_sge > SEND_FEW)
		goto unusual;
	if (MIG_LIKELY(wr->opcode <= IBV_WR_RDMA_WRITE_WITH_IMM || wr->opcode == IBV_WR_RDMA_READ)) {
		copy.wr.rdma.remote_addr = wr->wr.rdma.remote_addr;
		copy.wr.rdma.rkey = mig_keymap_get(qp->rkeys, wr->wr.rdma.rkey);
	} else if (wr->opcode != IBV_WR_SEND && wr->opcode != IBV_WR_SEND_WITH_IMM) {
		goto unusual;
	}
	copy.wr_id = wr->wr_id;
	copy.next = NULL;
	copy.sg_list = sges;
	copy.num_sge = wr->num_sge;
	copy.opcode = wr->opcode;
	copy.send_flags = wr->send_flags;
	copy.imm_data = wr->imm_data;
	mig_translate_sges(lkeys, sges, wr->sg_list, wr->num_sge);

	int error = qp->post_send(qp->real, &copy, &failed);
	mig_section_leave(section);
	if (MIG_UNLIKELY(error) && bad)
		*bad = wr;
	return error;

unusual:
	mig_section_leave(section);
	return send_slowly(qp, wr, bad);
}

int mig_post_send(struct ibv_qp *ibv, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct mig_qp *qp = MIG_CONTAINER(ibv, struct mig_qp, ibv);
	struct mig_section *section = mig_section_mine;

	if (MIG_UNLIKELY(!section))
		return send_slowly(qp, wr, bad);
	mig_section_enter(section);
	uint32_t gate = MIG_GATE(qp->send_gate);
	if (MIG_UNLIKELY(gate)) {
		if (MIG_LIKELY(gate == MIG_GATE_TRANSLATE))
			return send_one_translated(qp, wr, bad, section);
		mig_section_leave(section);
		return send_slowly(qp, wr, bad);
	}
	int result = qp->post_send(qp->real, wr, bad);
	mig_section_leave(section);
	return result;
}

/* A kept send that the real queue refuses can no longer be refused by a return value. */
static void complete_with_error(struct mig_qp *qp, const struct mig_send *send)
{
	struct ibv_wc wc = { .wr_id = send->wr.wr_id, .status = IBV_WC_LOC_QP_OP_ERR, .qp_num = qp->ibv.qp_num };

	mig_cq_push(mig_cq(qp->ibv.send_cq), &wc);
}

void mig_send_flush(struct mig_qp *qp, struct mig_send **done)
{
	struct mig_send *refused = NULL, **refused_end = &refused;

	mig_lock(&qp->send_lock);
	while (qp->kept && !(qp->send_gate & MIG_GATE_SHADOW)) {
		struct ibv_send_wr *bad = NULL;

		for (struct mig_send *send = qp->kept; send; send = send->next)
			send->wr.next = send->next ? &send->next->wr : NULL;
		int error = send_now(qp, qp->send_gate, &qp->kept->wr, &bad);
		while (qp->kept && (!error || &qp->kept->wr != bad)) {
			struct mig_send *posted = qp->kept;

			qp->kept = posted->next;
			qp->kept_count--;
			posted->next = *done;
			*done = posted;
			set_gate(qp, qp->send_gate & ~(uint32_t)MIG_GATE_FRESH);
		}
		if (error == ENOMEM || error == EAGAIN)
			break;
		if (error && qp->kept) {
			struct mig_send *send = qp->kept;

			qp->kept = send->next;
			qp->kept_count--;
			send->next = NULL;
			*refused_end = send;
			refused_end = &send->next;
		}
	}
	if (!qp->kept) {
		qp->kept_end = &qp->kept;
		set_gate(qp, qp->send_gate & ~(uint32_t)MIG_GATE_FLUSH);
	}
	mig_unlock(&qp->send_lock);

	for (struct mig_send *send = refused; send; send = send->next)
		complete_with_error(qp, send);
	*refused_end = *done;
	*done = refused ? refused : *done;
}
