/* ibv_post_send() by way of ibv_wr_*, with the setters that a request asks for. Of a QP without them, itself. */
#ifndef BUILT_H
#define BUILT_H

#include <errno.h>
#include <infiniband/verbs.h>

#define BUILT_OPERATIONS                                                                                           \
	(IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM | IBV_QP_EX_WITH_SEND |                    \
	 IBV_QP_EX_WITH_SEND_WITH_IMM | IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP |             \
	 IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD | IBV_QP_EX_WITH_LOCAL_INV | IBV_QP_EX_WITH_BIND_MW |                 \
	 IBV_QP_EX_WITH_SEND_WITH_INV)

static inline struct ibv_qp *create_to_build(struct ibv_pd *pd, struct ibv_qp_init_attr *init)
{
	struct ibv_qp_init_attr_ex attr = { .qp_context = init->qp_context, .sq_sig_all = init->sq_sig_all,
					    .send_cq = init->send_cq, .recv_cq = init->recv_cq, .srq = init->srq,
					    .cap = init->cap, .qp_type = init->qp_type, .pd = pd,
					    .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
					    .send_ops_flags = BUILT_OPERATIONS };

	if (init->qp_type == IBV_QPT_UC)
		attr.send_ops_flags &= IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM |
				       IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM;
	if (init->qp_type == IBV_QPT_UD)
		attr.send_ops_flags &= IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM;
	struct ibv_qp *qp = ibv_create_qp_ex(pd->context, &attr);

	init->cap = attr.cap;
	return qp;
}

/* Whether there is a way to say it. */
static inline int build_one(struct ibv_qp_ex *ex, const struct ibv_send_wr *wr)
{
	ex->wr_id = wr->wr_id;
	ex->wr_flags = wr->send_flags & ~(unsigned int)IBV_SEND_INLINE;
	switch (wr->opcode) {
	case IBV_WR_SEND:
		ibv_wr_send(ex);
		break;
	case IBV_WR_SEND_WITH_IMM:
		ibv_wr_send_imm(ex, wr->imm_data);
		break;
	case IBV_WR_SEND_WITH_INV:
		ibv_wr_send_inv(ex, wr->invalidate_rkey);
		break;
	case IBV_WR_RDMA_WRITE:
		ibv_wr_rdma_write(ex, wr->wr.rdma.rkey, wr->wr.rdma.remote_addr);
		break;
	case IBV_WR_RDMA_WRITE_WITH_IMM:
		ibv_wr_rdma_write_imm(ex, wr->wr.rdma.rkey, wr->wr.rdma.remote_addr, wr->imm_data);
		break;
	case IBV_WR_RDMA_READ:
		ibv_wr_rdma_read(ex, wr->wr.rdma.rkey, wr->wr.rdma.remote_addr);
		break;
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		ibv_wr_atomic_fetch_add(ex, wr->wr.atomic.rkey, wr->wr.atomic.remote_addr, wr->wr.atomic.compare_add);
		break;
	case IBV_WR_ATOMIC_CMP_AND_SWP:
		ibv_wr_atomic_cmp_swp(ex, wr->wr.atomic.rkey, wr->wr.atomic.remote_addr, wr->wr.atomic.compare_add,
				      wr->wr.atomic.swap);
		break;
	case IBV_WR_LOCAL_INV:
		ibv_wr_local_inv(ex, wr->invalidate_rkey);
		return 1;
	case IBV_WR_BIND_MW:
		ibv_wr_bind_mw(ex, wr->bind_mw.mw, wr->bind_mw.rkey, &wr->bind_mw.bind_info);
		return 1;
	default:
		return 0;
	}
	if (ex->qp_base.qp_type == IBV_QPT_UD)
		ibv_wr_set_ud_addr(ex, wr->wr.ud.ah, wr->wr.ud.remote_qpn, wr->wr.ud.remote_qkey);
	if (ex->qp_base.qp_type == IBV_QPT_XRC_SEND)
		ibv_wr_set_xrc_srqn(ex, wr->qp_type.xrc.remote_srqn);
	struct ibv_data_buf buffers[8];

	for (int i = 0; i < wr->num_sge && i < 8; i++)
		buffers[i] = (struct ibv_data_buf){ (void *)(uintptr_t)wr->sg_list[i].addr, wr->sg_list[i].length };
	if (wr->send_flags & IBV_SEND_INLINE && wr->num_sge == 1 && wr->wr_id % 2)
		ibv_wr_set_inline_data(ex, buffers[0].addr, buffers[0].length);
	else if (wr->send_flags & IBV_SEND_INLINE)
		ibv_wr_set_inline_data_list(ex, (size_t)wr->num_sge, buffers);
	else if (wr->num_sge == 1)
		ibv_wr_set_sge(ex, wr->sg_list->lkey, wr->sg_list->addr, wr->sg_list->length);
	else
		ibv_wr_set_sge_list(ex, (size_t)wr->num_sge, wr->sg_list);
	return 1;
}

static inline int post_built(struct ibv_qp *qp, struct ibv_send_wr *list, struct ibv_send_wr **bad)
{
	struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(qp);

	if (!ex)
		return ibv_post_send(qp, list, bad);
	ibv_wr_start(ex);
	for (const struct ibv_send_wr *wr = list; wr; wr = wr->next)
		if (!build_one(ex, wr)) {
			ibv_wr_abort(ex);
			*bad = list;
			return EINVAL;
		}
	int error = ibv_wr_complete(ex);

	if (error)
		*bad = list;
	return error;
}

#endif
