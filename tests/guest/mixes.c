/*
 * An application that mixes objects which the library shadows with those that it passes through. The fake device looks
 * behind the public part of everything it is given, and ends the process if it is not its own.
 */
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <string.h>

#define NEED(condition)                                                                                    \
	do {                                                                                               \
		if (!(condition)) {                                                                        \
			printf("line %d: %s\n", __LINE__, #condition);                                     \
			return 1;                                                                          \
		}                                                                                          \
	} while (0)

static int connect_with_itself(struct ibv_context *context, struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1 };

	NEED(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = qp->qp_num,
				     .ah_attr = { .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1 } } };
	NEED(!ibv_query_gid(context, 1, 1, &attr.ah_attr.grh.dgid));
	NEED(!ibv_modify_qp(qp, &attr,
			    IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				    IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER));
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7 };
	NEED(!ibv_modify_qp(qp, &attr,
			    IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
				    IBV_QP_MAX_QP_RD_ATOMIC));
	return 0;
}

/* The wr_id of what a datagram QP on that queue receives first. */
static uint64_t arrives_by(struct ibv_srq *srq, struct ibv_pd *pd, struct ibv_ah *ah,
			   const struct ibv_qp_init_attr *datagram, struct ibv_sge *sge)
{
	struct ibv_qp_init_attr init = *datagram;
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = 0x11111111 };
	struct ibv_send_wr send = { .wr_id = 78, .sg_list = &(struct ibv_sge){ sge->addr, 8, sge->lkey }, .num_sge = 1,
				    .opcode = IBV_WR_SEND, .wr.ud = { .ah = ah, .remote_qkey = 0x11111111 } }, *bad;
	struct ibv_wc wc;
	struct ibv_qp *qp;

	init.srq = srq;
	qp = ibv_create_qp(pd, &init);
	if (!qp || ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY))
		return 0;
	attr.qp_state = IBV_QPS_RTR;
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE))
		return 0;
	attr.qp_state = IBV_QPS_RTS;
	send.wr.ud.remote_qpn = qp->qp_num;
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN) || ibv_post_send(qp, &send, &bad))
		return 0;
	do
		wc.wr_id = 0;
	while (!ibv_poll_cq(init.recv_cq, 1, &wc));
	return ibv_destroy_qp(qp) ? 0 : wc.wr_id;
}

int main(void)
{
	static char memory[64];
	char line[16];
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *context = list ? ibv_open_device(list[0]) : NULL;

	NEED(context);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_comp_channel *channel = ibv_create_comp_channel(context);
	struct ibv_cq *cq = ibv_create_cq(context, 8, NULL, channel, 0);
	struct ibv_mr *mr = ibv_reg_mr(pd, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
	struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = { 4, 4, 1, 1, 0 } };
	struct ibv_qp *qp = ibv_create_qp(pd, &init);
	NEED(pd && channel && cq && mr && qp && !connect_with_itself(context, qp));

	struct ibv_mw *mw = ibv_alloc_mw(pd, IBV_MW_TYPE_1);
	struct ibv_mw_bind bind = { .bind_info = { .mr = mr, .addr = (uintptr_t)memory, .length = 8 } };
	NEED(mw && mw->pd == pd && mw->context == context && !ibv_bind_mw(qp, mw, &bind));

	struct ibv_qp_init_attr datagram = init;
	datagram.qp_type = IBV_QPT_UD;
	struct ibv_qp *ud = ibv_create_qp(pd, &datagram);
	struct ibv_ah_attr ah_attr = { .port_num = 1, .is_global = 1, .grh = { .sgid_index = 1 } };
	NEED(!ibv_query_gid(context, 1, 1, &ah_attr.grh.dgid));
	struct ibv_ah *ah = ibv_create_ah(pd, &ah_attr);
	struct ibv_ah *other_ah = ibv_create_ah(pd, &ah_attr);
	NEED(ud && ah && other_ah && !ibv_destroy_ah(other_ah));

	/* It is what was posted that completes. */
	struct ibv_srq_init_attr srq_init = { .attr = { 4, 1, 0 } };
	struct ibv_srq *movable = ibv_create_srq(pd, &srq_init), *srq = ibv_create_srq(pd, &srq_init);
	struct ibv_sge sge = { (uintptr_t)memory, 64, mr->lkey };
	struct ibv_recv_wr receive = { .wr_id = 77, .sg_list = &sge, .num_sge = 1 }, *bad;
	NEED(srq && movable && !ibv_post_srq_recv(movable, &receive, &bad));
	NEED(arrives_by(movable, pd, ah, &datagram, &sge) == 77);

	struct ibv_parent_domain_init_attr domain = { .pd = pd };
	struct ibv_pd *parent = ibv_alloc_parent_domain(context, &domain);
	struct ibv_qp *in_parent = parent ? ibv_create_qp(parent, &init) : NULL;
	NEED(in_parent);

	struct ibv_cq_init_attr_ex stamped = { .cqe = 8, .channel = channel, .wc_flags = IBV_WC_EX_WITH_COMPLETION_TIMESTAMP };
	struct ibv_cq_ex *foreign = ibv_create_cq_ex(context, &stamped);
	struct ibv_qp_init_attr on_foreign = init;
	on_foreign.recv_cq = foreign ? ibv_cq_ex_to_cq(foreign) : NULL;
	struct ibv_qp *mixed = foreign ? ibv_create_qp(pd, &on_foreign) : NULL;
	NEED(mixed);
	/* Its completions would show what stands in the place of the application's numbers: too late for this queue. */
	on_foreign.srq = movable;
	NEED(!ibv_create_qp(pd, &on_foreign) && errno == EOPNOTSUPP && !ibv_destroy_srq(movable));
	on_foreign.srq = srq;
	struct ibv_qp *sharing = ibv_create_qp(pd, &on_foreign);
	struct ibv_qp_init_attr shared = init;
	shared.srq = srq;
	struct ibv_qp *sharing_too = ibv_create_qp(pd, &shared);
	NEED(sharing && sharing_too && !ibv_post_srq_recv(srq, &receive, &bad));

	/* What the device refuses is no reason: programs probe. */
	struct ibv_qp_init_attr huge = datagram;
	huge.cap.max_send_wr = UINT32_MAX;
	NEED(!ibv_reg_dmabuf_mr(pd, 0, 64, 0, -1, IBV_ACCESS_LOCAL_WRITE) && !ibv_create_qp(pd, &huge));

	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	if (!fgets(line, sizeof(line), stdin))
		return 1;
	/* Without a length the window ends; only then is its memory free to be deregistered. */
	bind.bind_info = (struct ibv_mw_bind_info){ .mr = NULL };
	NEED(!ibv_bind_mw(qp, mw, &bind) && !ibv_dealloc_mw(mw));
	NEED(!ibv_destroy_ah(ah) && !ibv_destroy_qp(ud));
	/* One that cannot be ended yet goes on being a reason. */
	NEED(ibv_destroy_srq(srq) && !ibv_destroy_qp(sharing) && !ibv_destroy_qp(sharing_too));
	puts("a shared receive queue is left");
	if (!fgets(line, sizeof(line), stdin))
		return 1;
	NEED(!ibv_destroy_srq(srq) && !ibv_destroy_qp(in_parent) && !ibv_dealloc_pd(parent));
	NEED(!ibv_destroy_qp(qp) && !ibv_destroy_qp(mixed) && !ibv_destroy_cq(ibv_cq_ex_to_cq(foreign)));
	puts("ended");
	if (!fgets(line, sizeof(line), stdin))
		return 1;

	struct ibv_context *imported = ibv_import_device(context->cmd_fd);
	NEED(imported);
	puts("imported");
	if (!fgets(line, sizeof(line), stdin))
		return 1;
	NEED(!ibv_close_device(imported));
	puts("the imported device is closed");
	if (!fgets(line, sizeof(line), stdin))
		return 1;
	NEED(!ibv_dereg_mr(mr) && !ibv_destroy_cq(cq) && !ibv_destroy_comp_channel(channel) &&
	     !ibv_dealloc_pd(pd) && !ibv_close_device(context));
	ibv_free_device_list(list);
	puts("done");
	return 0;
}
