/* Posting to a send queue. */
#include <errno.h>
#include <string.h>

#include "soft.h"

void soft_set_ah(struct rnic_send *wqe, struct ibv_ah *ah, uint32_t qpn, uint32_t qkey)
{
	wqe->ud.route = ((struct soft_ah *)ah)->route;
	wqe->ud.qpn = qpn;
	wqe->ud.qkey = qkey;
}

/* What the data path of a driver checks, for the device would not say which request was wrong. */
static int check(const struct soft_qp *qp, const struct ibv_send_wr *wr)
{
	enum ibv_qp_type type = qp->ibv.qp_type;

	if (wr->num_sge < 0 || (uint32_t)wr->num_sge > qp->init.cap.max_send_sge)
		return EINVAL;
	switch (wr->opcode) {
	case IBV_WR_SEND:
	case IBV_WR_SEND_WITH_IMM:
		return type == IBV_QPT_UD && !wr->wr.ud.ah ? EINVAL : 0;
	case IBV_WR_RDMA_WRITE:
	case IBV_WR_RDMA_WRITE_WITH_IMM:
		return type == IBV_QPT_UD ? EINVAL : 0;
	case IBV_WR_RDMA_READ:
	case IBV_WR_ATOMIC_CMP_AND_SWP:
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		return type == IBV_QPT_UD || type == IBV_QPT_UC || wr->send_flags & IBV_SEND_INLINE ? EINVAL : 0;
	case IBV_WR_SEND_WITH_INV:
		return type == IBV_QPT_UD || type == IBV_QPT_UC ? EINVAL : 0;
	case IBV_WR_LOCAL_INV:
		return type == IBV_QPT_UD ? EINVAL : 0;
	case IBV_WR_BIND_MW:
		if (type == IBV_QPT_UD || !wr->bind_mw.mw || wr->bind_mw.mw->type != IBV_MW_TYPE_2)
			return EINVAL;
		return wr->bind_mw.bind_info.mr && wr->bind_mw.bind_info.mr->pd != wr->bind_mw.mw->pd ? EPERM : 0;
	default:
		return EINVAL;
	}
}

static int fill_data(struct soft_qp *qp, struct rnic_send *wqe, const struct ibv_send_wr *wr)
{
	size_t length = 0;

	if (!(wr->send_flags & IBV_SEND_INLINE)) {
		wqe->num_sge = (uint32_t)wr->num_sge;
		for (int i = 0; i < wr->num_sge; i++)
			wqe->sges[i] = (struct rnic_sge){ wr->sg_list[i].addr, wr->sg_list[i].length, wr->sg_list[i].lkey };
		return 0;
	}
	for (int i = 0; i < wr->num_sge; i++) {
		if (length + wr->sg_list[i].length > qp->init.cap.max_inline_data)
			return EINVAL;
		memcpy((char *)wqe->sges + length, (const void *)(uintptr_t)wr->sg_list[i].addr, wr->sg_list[i].length);
		length += wr->sg_list[i].length;
	}
	wqe->num_sge = 0;
	wqe->bytes = (uint32_t)length;
	return 0;
}

static void fill_bind(struct rnic_send *wqe, const struct ibv_mw *mw, uint32_t rkey, const struct ibv_mw_bind_info *info)
{
	wqe->bind.address = info->addr;
	wqe->bind.length = info->length;
	wqe->bind.mw = mw->handle;
	wqe->bind.mr = info->mr ? info->mr->handle : RNIC_NONE;
	wqe->bind.rkey = rkey;
	wqe->bind.present = mw->rkey;
	wqe->bind.access = info->mw_access_flags;
}

static int fill(struct soft_qp *qp, struct rnic_send *wqe, const struct ibv_send_wr *wr)
{
	int error = check(qp, wr);

	if (error)
		return error;
	wqe->wr_id = wr->wr_id;
	wqe->opcode = wr->opcode;
	wqe->flags = wr->send_flags;
	wqe->imm = wr->imm_data;
	wqe->xrc_srqn = qp->ibv.qp_type == IBV_QPT_XRC_SEND ? wr->qp_type.xrc.remote_srqn : 0;
	wqe->bytes = 0;
	switch (wr->opcode) {
	case IBV_WR_RDMA_WRITE:
	case IBV_WR_RDMA_WRITE_WITH_IMM:
	case IBV_WR_RDMA_READ:
		wqe->rdma.address = wr->wr.rdma.remote_addr;
		wqe->rdma.rkey = wr->wr.rdma.rkey;
		break;
	case IBV_WR_ATOMIC_CMP_AND_SWP:
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		wqe->atomic.address = wr->wr.atomic.remote_addr;
		wqe->atomic.compare_add = wr->wr.atomic.compare_add;
		wqe->atomic.swap = wr->wr.atomic.swap;
		wqe->atomic.rkey = wr->wr.atomic.rkey;
		break;
	case IBV_WR_BIND_MW:
		fill_bind(wqe, wr->bind_mw.mw, wr->bind_mw.rkey, &wr->bind_mw.bind_info);
		wqe->num_sge = 0;
		return 0;
	default:
		if (qp->ibv.qp_type == IBV_QPT_UD)
			soft_set_ah(wqe, wr->wr.ud.ah, wr->wr.ud.remote_qpn, wr->wr.ud.remote_qkey);
		break;
	}
	return fill_data(qp, wqe, wr);
}

static int post_send(struct ibv_qp *ibv, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct soft_qp *qp = (struct soft_qp *)ibv;
	struct device_link *link = soft_link(ibv->context, "post_send");
	uint32_t filled = 0;
	int error = soft_fault(link, "post_send");

	if (!error && (ibv->state < IBV_QPS_RTS || !qp->sq))
		error = EINVAL;
	if (error) {
		*bad = wr;
		return error;
	}
	pthread_mutex_lock(&qp->send_lock);
	for (; wr; wr = wr->next) {
		struct rnic_send *wqe = rnic_ring_free(qp->sq, filled);

		if ((error = wqe ? fill(qp, wqe, wr) : ENOMEM))
			break;
		filled++;
	}
	if (error)
		*bad = wr;
	rnic_ring_give(qp->sq, filled);
	if (filled)
		device_link_doorbell(link, ibv->handle, false);
	pthread_mutex_unlock(&qp->send_lock);
	return error;
}

/* Of a window of type 1: its key changes with each binding, and the device counts the way this does. */
static int bind_mw(struct ibv_qp *ibv, struct ibv_mw *mw, struct ibv_mw_bind *bind)
{
	struct soft_qp *qp = (struct soft_qp *)ibv;
	struct device_link *link = soft_link(ibv->context, "bind_mw");
	uint32_t rkey = ibv_inc_rkey(mw->rkey);
	int error = soft_fault(link, "bind_mw");

	if (error)
		return error;
	if (ibv->state < IBV_QPS_RTS || !qp->sq || mw->pd->handle != ibv->pd->handle)
		return EINVAL;
	pthread_mutex_lock(&qp->send_lock);
	struct rnic_send *wqe = rnic_ring_free(qp->sq, 0);
	if (wqe) {
		wqe->wr_id = bind->wr_id;
		wqe->opcode = IBV_WR_BIND_MW;
		wqe->flags = bind->send_flags & ~(unsigned int)IBV_SEND_INLINE;
		wqe->imm = wqe->xrc_srqn = wqe->num_sge = wqe->bytes = 0;
		fill_bind(wqe, mw, rkey, &bind->bind_info);
		rnic_ring_give(qp->sq, 1);
		device_link_doorbell(link, ibv->handle, false);
		mw->rkey = rkey;
	}
	pthread_mutex_unlock(&qp->send_lock);
	return wqe ? 0 : ENOMEM;
}

void soft_fill_send(struct verbs_context *verbs)
{
	verbs->context.ops.post_send = post_send;
	verbs->context.ops.bind_mw = bind_mw;
}
