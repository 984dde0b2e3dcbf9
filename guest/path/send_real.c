#include "path/send_real.h"

#include "path/datagram.h"
#include "path/translate.h"
#include "path/window.h"

#define SEND_BATCH 16
#define SEND_SGES MIG_MOST_SGES

void mig_send_translate_keys(const struct mig_qp *qp, struct ibv_send_wr *wr)
{
	if (qp->srqns)
		wr->qp_type.xrc.remote_srqn = mig_keymap_get(qp->srqns, wr->qp_type.xrc.remote_srqn);
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
	case IBV_WR_LOCAL_INV:
		mig_window_translate(mig_context(qp->ibv.context), wr);
		break;
	default:
		break;
	}
}

/*
 * Copies in batches, as the application's requests are its own and may be shared. A list longer than a batch may
 * be interleaved with another thread's, which verbs do not promise against. In a section or under the lock.
 */
static int send_translated(struct mig_qp *qp, struct ibv_send_wr *wr, int kept, struct ibv_send_wr **bad)
{
	const struct mig_context *context = mig_context(qp->ibv.context);
	const struct mig_keymap *lkeys = context->lkeys;

	while (wr) {
		struct ibv_send_wr copies[SEND_BATCH], *originals[SEND_BATCH], *failed = NULL;
		struct ibv_sge sges[SEND_SGES];
		int count = 0, used = 0, binds = 0;

		if (mig_window_is_of_type_1(wr)) {
			int error = mig_window_bind_type_1(qp, wr);

			if (error && bad)
				*bad = wr;
			if (error)
				return error;
			mig_window_posted(qp, wr);
			wr = wr->next;
			continue;
		}
		/* One that binds ends a batch, since it tells the device by the window itself which rkey it has had. */
		for (; wr && count < SEND_BATCH && !binds && !mig_window_is_of_type_1(wr); wr = wr->next) {
			/* A list too long for the queue is the real library's to refuse, before it is read. */
			int listed = wr->num_sge > (int)qp->cap.max_send_sge || wr->num_sge < 0 ? 0 : wr->num_sge;

			if (used + listed > SEND_SGES)
				break;
			originals[count] = wr;
			copies[count] = *wr;
			binds = wr->opcode == IBV_WR_BIND_MW;
			if (!kept)
				mig_window_note(&copies[count]);
			if (listed) {
				copies[count].sg_list = sges + used;
				mig_translate_sges(lkeys, sges + used, wr->sg_list, listed);
				used += listed;
			}
			if (mig_is_datagram(qp))
				mig_datagram_translate(&copies[count]);
			else
				mig_send_translate_keys(qp, &copies[count]);
			copies[count].next = NULL;
			if (count)
				copies[count - 1].next = &copies[count];
			count++;
		}
		int error = qp->post_send(qp->real, copies, &failed);
		for (int i = 0; context->has_windows && i < count && (!error || &copies[i] != failed); i++)
			mig_window_posted(qp, originals[i]);
		if (error) {
			if (bad)
				*bad = failed >= copies && failed < copies + count ? originals[failed - copies]
										   : originals[0];
			return error;
		}
	}
	return 0;
}

int mig_send_real(struct mig_qp *qp, uint32_t gate, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	return gate & (MIG_GATE_TRANSLATE | MIG_GATE_DATAGRAM) ? send_translated(qp, wr, 0, bad) : qp->post_send(qp->real, wr, bad);
}

int mig_send_kept(struct mig_qp *qp, uint32_t gate, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	return gate & (MIG_GATE_TRANSLATE | MIG_GATE_DATAGRAM) ? send_translated(qp, wr, 1, bad) : qp->post_send(qp->real, wr, bad);
}
