#include "path/replay.h"

#include "path/datagram.h"
#include "path/send_real.h"
#include "path/translate.h"
#include "path/window.h"

static void replay_operation(struct ibv_qp_ex *real, const struct ibv_send_wr *wr)
{
	const typeof(wr->wr.rdma) *rdma = &wr->wr.rdma;
	const typeof(wr->wr.atomic) *atomic = &wr->wr.atomic;

	switch (wr->opcode) {
	case IBV_WR_RDMA_WRITE:
		real->wr_rdma_write(real, rdma->rkey, rdma->remote_addr);
		break;
	case IBV_WR_RDMA_WRITE_WITH_IMM:
		real->wr_rdma_write_imm(real, rdma->rkey, rdma->remote_addr, wr->imm_data);
		break;
	case IBV_WR_RDMA_READ:
		real->wr_rdma_read(real, rdma->rkey, rdma->remote_addr);
		break;
	case IBV_WR_SEND:
		real->wr_send(real);
		break;
	case IBV_WR_SEND_WITH_IMM:
		real->wr_send_imm(real, wr->imm_data);
		break;
	case IBV_WR_SEND_WITH_INV:
		real->wr_send_inv(real, wr->invalidate_rkey);
		break;
	case IBV_WR_ATOMIC_CMP_AND_SWP:
		real->wr_atomic_cmp_swp(real, atomic->rkey, atomic->remote_addr, atomic->compare_add, atomic->swap);
		break;
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		real->wr_atomic_fetch_add(real, atomic->rkey, atomic->remote_addr, atomic->compare_add);
		break;
	case IBV_WR_LOCAL_INV:
		real->wr_local_inv(real, wr->invalidate_rkey);
		break;
	case IBV_WR_BIND_MW:
		real->wr_bind_mw(real, wr->bind_mw.mw, wr->bind_mw.rkey, &wr->bind_mw.bind_info);
		break;
	default:
		break;
	}
}

static void replay_inline(struct ibv_qp_ex *real, const struct ibv_send_wr *wr)
{
	struct ibv_data_buf buffers[MIG_MOST_SGES];

	for (int i = 0; i < wr->num_sge; i++)
		buffers[i] = (struct ibv_data_buf){ (void *)(uintptr_t)wr->sg_list[i].addr, wr->sg_list[i].length };
	if (wr->num_sge == 1)
		real->wr_set_inline_data(real, buffers->addr, buffers->length);
	else
		real->wr_set_inline_data_list(real, (size_t)wr->num_sge, buffers);
}

static void replay_data(struct mig_qp *qp, const struct ibv_send_wr *wr)
{
	struct ibv_qp_ex *real = qp->real_ex;
	struct ibv_sge sges[MIG_MOST_SGES];

	if (wr->opcode == IBV_WR_LOCAL_INV || wr->opcode == IBV_WR_BIND_MW)
		return;
	if (wr->send_flags & IBV_SEND_INLINE) {
		replay_inline(real, wr);
		return;
	}
	mig_translate_sges(mig_context(qp->ibv.context)->lkeys, sges, wr->sg_list, wr->num_sge);
	if (wr->num_sge == 1)
		real->wr_set_sge(real, sges->lkey, sges->addr, sges->length);
	else
		real->wr_set_sge_list(real, (size_t)wr->num_sge, sges);
}

int mig_replay(struct mig_qp *qp, struct mig_send *list)
{
	struct ibv_qp_ex *real = qp->real_ex;

	for (const struct mig_send *send = list; send; send = send->next) {
		struct ibv_send_wr wr = send->wr;

		if (mig_is_datagram(qp))
			mig_datagram_translate(&wr);
		else
			mig_send_translate_keys(qp, &wr);
		real->wr_id = wr.wr_id;
		/* With the flag for inline data, though ibv_wr_post(3) has none: without it Soft-RoCE takes them for addresses. */
		real->wr_flags = wr.send_flags;
		replay_operation(real, &wr);
		if (mig_is_datagram(qp))
			real->wr_set_ud_addr(real, wr.wr.ud.ah, wr.wr.ud.remote_qpn, wr.wr.ud.remote_qkey);
		else if (qp->ibv.qp_type == IBV_QPT_XRC_SEND)
			real->wr_set_xrc_srqn(real, wr.qp_type.xrc.remote_srqn);
		replay_data(qp, &wr);
	}
	int error = qp->complete(real);

	for (const struct mig_send *send = error ? NULL : list; send; send = send->next)
		mig_window_posted(qp, &send->wr);
	return error;
}
