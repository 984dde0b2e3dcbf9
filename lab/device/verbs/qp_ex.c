/*
 * ibv_wr_*: requests are built in the ring itself, one after the other, and given to the device together or not at all. The
 * send lock is held from wr_start to wr_complete or wr_abort. What is wrong with one is said at the end.
 */
#include <errno.h>
#include <string.h>

#include "soft.h"

/* Where an unusable request goes, so that its setters have something to write to. */
static __thread union {
	struct rnic_send send;
	char room[sizeof(struct rnic_send) + RNIC_MAX_SGE * sizeof(struct rnic_sge) + RNIC_MAX_INLINE];
} nowhere;

static struct soft_qp *soft_qp(struct ibv_qp_ex *ex)
{
	return (struct soft_qp *)ex;
}

static void fail(struct soft_qp *qp, int error)
{
	if (!qp->build_error)
		qp->build_error = error;
}

static void wr_start(struct ibv_qp_ex *ex)
{
	struct soft_qp *qp = soft_qp(ex);

	pthread_mutex_lock(&qp->send_lock);
	qp->built = 0;
	qp->building = NULL;
	qp->build_error = soft_fault(soft_link(ex->qp_base.context, "wr_start"), "post_send");
	if (!qp->build_error && (ex->qp_base.state < IBV_QPS_RTS || !qp->sq))
		qp->build_error = EINVAL;
}

static int wr_complete(struct ibv_qp_ex *ex)
{
	struct soft_qp *qp = soft_qp(ex);
	int error = qp->build_error;

	if (!error && qp->built) {
		rnic_ring_give(qp->sq, qp->built);
		device_link_doorbell(soft_link(ex->qp_base.context, "wr_complete"), ex->qp_base.handle, false);
	}
	pthread_mutex_unlock(&qp->send_lock);
	return error;
}

static void wr_abort(struct ibv_qp_ex *ex)
{
	pthread_mutex_unlock(&soft_qp(ex)->send_lock);
}

static struct rnic_send *begin(struct ibv_qp_ex *ex, enum ibv_wr_opcode opcode)
{
	struct soft_qp *qp = soft_qp(ex);
	struct rnic_send *wqe = qp->build_error ? NULL : rnic_ring_free(qp->sq, qp->built);

	if (wqe)
		qp->built++;
	else
		fail(qp, ENOMEM);
	qp->building = wqe = wqe ? wqe : &nowhere.send;
	memset(wqe, 0, sizeof(*wqe));
	wqe->wr_id = ex->wr_id;
	wqe->opcode = opcode;
	wqe->flags = ex->wr_flags & ~(unsigned int)IBV_SEND_INLINE;
	return wqe;
}

static void remote(struct ibv_qp_ex *ex, enum ibv_wr_opcode opcode, uint32_t rkey, uint64_t address, __be32 imm)
{
	struct rnic_send *wqe = begin(ex, opcode);

	wqe->rdma.address = address;
	wqe->rdma.rkey = rkey;
	wqe->imm = imm;
}

static void wr_rdma_write(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t address)
{
	remote(ex, IBV_WR_RDMA_WRITE, rkey, address, 0);
}

static void wr_rdma_write_imm(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t address, __be32 imm)
{
	remote(ex, IBV_WR_RDMA_WRITE_WITH_IMM, rkey, address, imm);
}

static void wr_rdma_read(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t address)
{
	remote(ex, IBV_WR_RDMA_READ, rkey, address, 0);
}

static void wr_send(struct ibv_qp_ex *ex)
{
	begin(ex, IBV_WR_SEND);
}

static void wr_send_imm(struct ibv_qp_ex *ex, __be32 imm)
{
	begin(ex, IBV_WR_SEND_WITH_IMM)->imm = imm;
}

static void wr_send_inv(struct ibv_qp_ex *ex, uint32_t rkey)
{
	begin(ex, IBV_WR_SEND_WITH_INV)->imm = rkey;
}

static void wr_local_inv(struct ibv_qp_ex *ex, uint32_t rkey)
{
	begin(ex, IBV_WR_LOCAL_INV)->imm = rkey;
}

static void atomic(struct ibv_qp_ex *ex, enum ibv_wr_opcode opcode, uint32_t rkey, uint64_t address, uint64_t compare_add,
		   uint64_t swap)
{
	struct rnic_send *wqe = begin(ex, opcode);

	wqe->atomic.address = address;
	wqe->atomic.compare_add = compare_add;
	wqe->atomic.swap = swap;
	wqe->atomic.rkey = rkey;
}

static void wr_atomic_cmp_swp(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t address, uint64_t compare, uint64_t swap)
{
	atomic(ex, IBV_WR_ATOMIC_CMP_AND_SWP, rkey, address, compare, swap);
}

static void wr_atomic_fetch_add(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t address, uint64_t add)
{
	atomic(ex, IBV_WR_ATOMIC_FETCH_AND_ADD, rkey, address, add, 0);
}

static void wr_bind_mw(struct ibv_qp_ex *ex, struct ibv_mw *mw, uint32_t rkey, const struct ibv_mw_bind_info *info)
{
	struct rnic_send *wqe = begin(ex, IBV_WR_BIND_MW);

	if (mw->type != IBV_MW_TYPE_2 || (info->mr && info->mr->pd != mw->pd))
		fail(soft_qp(ex), EINVAL);
	wqe->bind.address = info->addr;
	wqe->bind.length = info->length;
	wqe->bind.mw = mw->handle;
	wqe->bind.mr = info->mr ? info->mr->handle : RNIC_NONE;
	wqe->bind.rkey = rkey;
	wqe->bind.present = mw->rkey;
	wqe->bind.access = info->mw_access_flags;
}

static void wr_set_sge_list(struct ibv_qp_ex *ex, size_t count, const struct ibv_sge *sges)
{
	struct soft_qp *qp = soft_qp(ex);

	if (count > qp->init.cap.max_send_sge) {
		fail(qp, EINVAL);
		return;
	}
	for (size_t i = 0; i < count; i++)
		qp->building->sges[i] = (struct rnic_sge){ sges[i].addr, sges[i].length, sges[i].lkey };
	qp->building->num_sge = (uint32_t)count;
}

static void wr_set_sge(struct ibv_qp_ex *ex, uint32_t lkey, uint64_t address, uint32_t length)
{
	struct ibv_sge sge = { address, length, lkey };

	/* The specification counts an element of no bytes as none. */
	wr_set_sge_list(ex, length ? 1 : 0, &sge);
}

static void wr_set_inline_data_list(struct ibv_qp_ex *ex, size_t count, const struct ibv_data_buf *buffers)
{
	struct soft_qp *qp = soft_qp(ex);
	size_t length = 0;

	for (size_t i = 0; i < count; i++) {
		if (length + buffers[i].length > qp->init.cap.max_inline_data) {
			fail(qp, EINVAL);
			return;
		}
		memcpy((char *)qp->building->sges + length, buffers[i].addr, buffers[i].length);
		length += buffers[i].length;
	}
	qp->building->flags |= IBV_SEND_INLINE;
	qp->building->bytes = (uint32_t)length;
}

static void wr_set_inline_data(struct ibv_qp_ex *ex, void *address, size_t length)
{
	struct ibv_data_buf buffer = { address, length };

	wr_set_inline_data_list(ex, 1, &buffer);
}

/* Of no meaning to other kinds of QPs, whose requests keep other things there. */
static void wr_set_ud_addr(struct ibv_qp_ex *ex, struct ibv_ah *ah, uint32_t qpn, uint32_t qkey)
{
	if (ex->qp_base.qp_type == IBV_QPT_UD)
		soft_set_ah(soft_qp(ex)->building, ah, qpn, qkey);
}

static void wr_set_xrc_srqn(struct ibv_qp_ex *ex, uint32_t srqn)
{
	if (ex->qp_base.qp_type == IBV_QPT_XRC_SEND)
		soft_qp(ex)->building->xrc_srqn = srqn;
}

/* Which operations each kind of QP has. */
static uint64_t operations_of(enum ibv_qp_type type)
{
	const uint64_t send = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM;
	const uint64_t write = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM;
	const uint64_t windows = IBV_QP_EX_WITH_LOCAL_INV | IBV_QP_EX_WITH_BIND_MW;

	switch (type) {
	case IBV_QPT_RC:
	case IBV_QPT_XRC_SEND:
		return send | write | windows | IBV_QP_EX_WITH_SEND_WITH_INV | IBV_QP_EX_WITH_RDMA_READ |
		       IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD;
	case IBV_QPT_UC:
		return send | write | windows;
	case IBV_QPT_UD:
		return send;
	default:
		return 0;
	}
}

int soft_fill_qp_ex(struct soft_qp *qp, uint64_t send_ops_flags)
{
	struct ibv_qp_ex *ex = &qp->ex;

	if (send_ops_flags & ~operations_of(qp->init.qp_type))
		return EOPNOTSUPP;
	qp->is_extended = true;
	ex->wr_start = wr_start;
	ex->wr_complete = wr_complete;
	ex->wr_abort = wr_abort;
	ex->wr_rdma_write = wr_rdma_write;
	ex->wr_rdma_write_imm = wr_rdma_write_imm;
	ex->wr_rdma_read = wr_rdma_read;
	ex->wr_send = wr_send;
	ex->wr_send_imm = wr_send_imm;
	ex->wr_send_inv = wr_send_inv;
	ex->wr_local_inv = wr_local_inv;
	ex->wr_atomic_cmp_swp = wr_atomic_cmp_swp;
	ex->wr_atomic_fetch_add = wr_atomic_fetch_add;
	ex->wr_bind_mw = wr_bind_mw;
	ex->wr_set_sge = wr_set_sge;
	ex->wr_set_sge_list = wr_set_sge_list;
	ex->wr_set_inline_data = wr_set_inline_data;
	ex->wr_set_inline_data_list = wr_set_inline_data_list;
	ex->wr_set_ud_addr = wr_set_ud_addr;
	ex->wr_set_xrc_srqn = wr_set_xrc_srqn;
	return 0;
}
