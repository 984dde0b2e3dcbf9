/*
 * The extended interfaces. "walk" takes completions by start_poll, next_poll, end_poll and compares what every read
 * function says; "wr" makes a QP with ibv_create_qp_ex and posts with every ibv_wr_* that an RC QP has and every
 * ibv_wr_set_*, "again" posts the same with it; "end" ends that QP. Each is answered by "ok" or by what is wrong.
 */
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <string.h>

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_cq_ex *cq;
static struct ibv_mr *mr;
static struct ibv_qp *qp;
static uint64_t memory[64];
static char wrong[256];

#define NEED(expression)                                                                                   \
	do {                                                                                               \
		errno = 0;                                                                                 \
		if (!(expression))                                                                         \
			return snprintf(wrong, sizeof(wrong), "line %d: %s: %s", __LINE__, #expression, strerror(errno)); \
	} while (0)

#define STANDARD                                                                                           \
	(IBV_WC_EX_WITH_BYTE_LEN | IBV_WC_EX_WITH_IMM | IBV_WC_EX_WITH_QP_NUM | IBV_WC_EX_WITH_SRC_QP |      \
	 IBV_WC_EX_WITH_SLID | IBV_WC_EX_WITH_SL | IBV_WC_EX_WITH_DLID_PATH_BITS)

/* With itself. */
static int connect_qp(struct ibv_qp *one)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1,
				    .qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
						       IBV_ACCESS_REMOTE_ATOMIC };

	NEED(!ibv_modify_qp(one, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .dest_qp_num = one->qp_num, .path_mtu = IBV_MTU_1024,
				     .max_dest_rd_atomic = 1, .min_rnr_timer = 12,
				     .ah_attr = { .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1 } } };
	NEED(!ibv_query_gid(context, 1, 1, &attr.ah_attr.grh.dgid));
	NEED(!ibv_modify_qp(one, &attr,
			    IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				    IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER));
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .rnr_retry = 7, .timeout = 14, .retry_cnt = 7,
				     .max_rd_atomic = 1 };
	NEED(!ibv_modify_qp(one, &attr,
			    IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
				    IBV_QP_MAX_QP_RD_ATOMIC));
	return 0;
}

static int open_all(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_cq_init_attr_ex attr = { .cqe = 64, .wc_flags = STANDARD };
	struct ibv_qp_init_attr init = { .qp_type = IBV_QPT_RC, .cap = { 16, 16, 2, 2, 16 } };

	NEED(list && (context = ibv_open_device(list[0])));
	ibv_free_device_list(list);
	NEED(pd = ibv_alloc_pd(context));
	NEED(cq = ibv_create_cq_ex(context, &attr));
	NEED(ibv_cq_ex_to_cq(cq)->cqe >= 64);
	NEED(mr = ibv_reg_mr(pd, memory, sizeof(memory),
			     IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
				     IBV_ACCESS_REMOTE_ATOMIC));
	init.send_cq = init.recv_cq = ibv_cq_ex_to_cq(cq);
	NEED(qp = ibv_create_qp(pd, &init));
	return connect_qp(qp);
}

static int post_recv(struct ibv_qp *one, uint64_t wr_id)
{
	struct ibv_sge sge = { (uintptr_t)&memory[32], 16, mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = wr_id, .sg_list = &sge, .num_sge = 1 }, *bad;

	NEED(!ibv_post_recv(one, &wr, &bad));
	return 0;
}

static int walk(void)
{
	static uint32_t number;
	struct ibv_poll_cq_attr none = { 0 }, unknown = { .comp_mask = 1 };
	int sends = 0, receives = 0;

	NEED(ibv_start_poll(cq, &unknown) == EINVAL);
	NEED(ibv_start_poll(cq, &none) == ENOENT);
	for (int i = 0; i < 3; i++) {
		struct ibv_sge sge = { (uintptr_t)memory, 8, mr->lkey };
		struct ibv_send_wr wr = { .wr_id = 100 + number + (uint32_t)i, .sg_list = &sge, .num_sge = 1,
					  .opcode = IBV_WR_SEND_WITH_IMM, .imm_data = number + (uint32_t)i,
					  .send_flags = IBV_SEND_SIGNALED }, *bad;

		if (post_recv(qp, 200 + number + (uint32_t)i))
			return 1;
		NEED(!ibv_post_send(qp, &wr, &bad));
	}
	int error = ibv_start_poll(cq, &none);
	while (!error) {
		NEED(cq->status == IBV_WC_SUCCESS);
		NEED(ibv_wc_read_qp_num(cq) == qp->qp_num);
		NEED(ibv_wc_read_vendor_err(cq) == 0 && ibv_wc_read_slid(cq) == 0 && ibv_wc_read_sl(cq) == 0 &&
		     ibv_wc_read_dlid_path_bits(cq) == 0);
		if (ibv_wc_read_opcode(cq) == IBV_WC_RECV) {
			NEED(cq->wr_id == 200u + number + (uint32_t)receives);
			NEED(ibv_wc_read_wc_flags(cq) == IBV_WC_WITH_IMM && ibv_wc_read_byte_len(cq) == 8);
			NEED(ibv_wc_read_imm_data(cq) == number + (uint32_t)receives);
			NEED(ibv_wc_read_src_qp(cq) == qp->qp_num);
			receives++;
		} else {
			NEED(ibv_wc_read_opcode(cq) == IBV_WC_SEND);
			NEED(cq->wr_id == 100u + number + (uint32_t)sends++);
		}
		/* In two walks: the second goes on where the first has ended. */
		if (sends == 2 && receives == 2) {
			ibv_end_poll(cq);
			error = ibv_start_poll(cq, &none);
		} else {
			error = ibv_next_poll(cq);
		}
	}
	NEED(error == ENOENT);
	ibv_end_poll(cq);
	NEED(sends == 3 && receives == 3);
	number += 3;
	return 0;
}

static int take(struct ibv_cq *plain, struct ibv_qp *one, enum ibv_wc_opcode opcode, uint64_t wr_id)
{
	struct ibv_wc wc;

	NEED(ibv_poll_cq(plain, 1, &wc) == 1);
	NEED(wc.status == IBV_WC_SUCCESS && wc.opcode == opcode && wc.wr_id == wr_id && wc.qp_num == one->qp_num);
	return 0;
}

static struct ibv_qp *left;
static struct ibv_cq *left_cq;

static int make_to_build(void)
{
	struct ibv_cq *plain = ibv_create_cq(context, 64, NULL, NULL, 0);
	struct ibv_qp_init_attr_ex init = {
		.qp_type = IBV_QPT_RC, .cap = { 16, 16, 2, 2, 32 }, .send_cq = plain, .recv_cq = plain, .pd = pd,
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.send_ops_flags = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM | IBV_QP_EX_WITH_SEND |
				  IBV_QP_EX_WITH_SEND_WITH_IMM | IBV_QP_EX_WITH_RDMA_READ |
				  IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD };
	struct ibv_qp *one = plain ? ibv_create_qp_ex(context, &init) : NULL;

	NEED(one && ibv_qp_to_qp_ex(one) && ibv_qp_to_qp_ex(qp) == NULL);
	left = one;
	left_cq = plain;
	return connect_qp(one);
}

/* With every request and every setter, and what is dropped again. */
static int build(void)
{
	struct ibv_qp *one = left;
	struct ibv_cq *plain = left_cq;
	struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(one);
	struct ibv_sge list[2] = { { (uintptr_t)&memory[0], 8, mr->lkey }, { (uintptr_t)&memory[1], 8, mr->lkey } };
	struct ibv_data_buf buffers[2] = { { &memory[2], 8 }, { &memory[3], 8 } };
	uint64_t there = (uintptr_t)&memory[16];

	for (uint64_t i = 1; i <= 3; i++)
		if (post_recv(one, i))
			return 1;
	for (int i = 0; i < 4; i++)
		memory[i] = 0x1000u + (unsigned int)i;
	memory[16] = memory[17] = memory[18] = 0;

	ibv_wr_start(ex);
	ex->wr_flags = IBV_SEND_SIGNALED;
	ex->wr_id = 10;
	ibv_wr_rdma_write(ex, mr->rkey, there);
	ibv_wr_set_sge_list(ex, 2, list);
	ex->wr_id = 11;
	ibv_wr_rdma_write_imm(ex, mr->rkey, there + 16, 5);
	ibv_wr_set_inline_data(ex, &memory[2], 8);
	ex->wr_id = 12;
	ibv_wr_send(ex);
	ibv_wr_set_inline_data_list(ex, 2, buffers);
	ibv_wr_set_ud_addr(ex, NULL, 1, 2);
	ibv_wr_set_xrc_srqn(ex, 3);
	memory[2] = memory[3] = 0;
	ex->wr_id = 13;
	ibv_wr_send_imm(ex, 6);
	ibv_wr_set_sge(ex, mr->lkey, (uintptr_t)&memory[0], 8);
	ex->wr_id = 14;
	ibv_wr_rdma_read(ex, mr->rkey, there);
	ibv_wr_set_sge(ex, mr->lkey, (uintptr_t)&memory[8], 16);
	ex->wr_id = 15;
	ibv_wr_atomic_fetch_add(ex, mr->rkey, there, 1);
	ibv_wr_set_sge(ex, mr->lkey, (uintptr_t)&memory[10], 8);
	NEED(!ibv_wr_complete(ex));

	if (take(plain, one, IBV_WC_RDMA_WRITE, 10) || take(plain, one, IBV_WC_RECV_RDMA_WITH_IMM, 1) ||
	    take(plain, one, IBV_WC_RDMA_WRITE, 11) || take(plain, one, IBV_WC_RECV, 2) ||
	    take(plain, one, IBV_WC_SEND, 12) || take(plain, one, IBV_WC_RECV, 3) ||
	    take(plain, one, IBV_WC_SEND, 13) || take(plain, one, IBV_WC_RDMA_READ, 14) ||
	    take(plain, one, IBV_WC_FETCH_ADD, 15))
		return 1;
	NEED(memory[8] == 0x1000 && memory[9] == 0x1001 && memory[10] == 0x1000);
	NEED(memory[16] == 0x1001 && memory[17] == 0x1001 && memory[18] == 0x1002);

	ibv_wr_start(ex);
	ibv_wr_send(ex);
	ibv_wr_abort(ex);
	struct ibv_wc wc;
	NEED(ibv_poll_cq(plain, 1, &wc) == 0);
	return 0;
}

static int wr(void)
{
	return make_to_build() || build();
}

static int end(void)
{
	NEED(!ibv_destroy_qp(left) && !ibv_destroy_cq(left_cq));
	return 0;
}

int main(void)
{
	char line[16];

	setvbuf(stdout, NULL, _IOLBF, 0);
	puts(open_all() ? wrong : "ready");
	while (fgets(line, sizeof(line), stdin))
		puts((!strcmp(line, "walk\n") ? walk() : !strcmp(line, "end\n") ? end() : !strcmp(line, "again\n") ? build() : wr()) ? wrong : "ok");
	return 0;
}
