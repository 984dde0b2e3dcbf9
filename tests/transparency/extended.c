/*
 * What the extended interfaces do on a device, line by line: a queue pair connected with itself, made by
 * ibv_create_qp_ex, takes a request of every ibv_wr_* with every ibv_wr_set_* that there is; completions are taken by
 * start_poll, next_poll and end_poll, and everything that they can be asked is printed. Numbers that differ from run
 * to run are compared here and not printed. Like a tool of rdma-core, it knows nothing of what may lie between.
 *
 *     extended DEVICE GID_INDEX
 */
#include <endian.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STANDARD                                                                                           \
	(IBV_WC_EX_WITH_BYTE_LEN | IBV_WC_EX_WITH_IMM | IBV_WC_EX_WITH_QP_NUM | IBV_WC_EX_WITH_SRC_QP |      \
	 IBV_WC_EX_WITH_SLID | IBV_WC_EX_WITH_SL | IBV_WC_EX_WITH_DLID_PATH_BITS)
#define ACCESS                                                                                             \
	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC | \
	 IBV_ACCESS_MW_BIND)
#define SECONDS 20
#define QKEY 0x11111111

static uint64_t memory[1024];
static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_cq_ex *cq;
static struct ibv_mr *mr;
static union ibv_gid gid;
static int gid_index;

static void __attribute__((noreturn)) failed(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	exit(1);
}

static uintptr_t at(int word)
{
	return (uintptr_t)&memory[word];
}

static struct ibv_qp_ex *make_qp(enum ibv_qp_type type, uint64_t operations)
{
	struct ibv_qp_init_attr_ex init = {
		.qp_type = type, .cap = { 64, 64, 4, 4, 64 }, .pd = pd, .send_cq = ibv_cq_ex_to_cq(cq),
		.recv_cq = ibv_cq_ex_to_cq(cq), .send_ops_flags = operations,
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS };
	struct ibv_qp *qp = ibv_create_qp_ex(context, &init);

	printf("ibv_create_qp_ex of type %d: %s\n", type, qp ? "ok" : strerror(errno));
	return qp ? ibv_qp_to_qp_ex(qp) : NULL;
}

static void connect_qp(struct ibv_qp *qp)
{
	bool rc = qp->qp_type == IBV_QPT_RC;
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = QKEY,
				    .qp_access_flags = ACCESS & ~IBV_ACCESS_MW_BIND };

	if (ibv_modify_qp(qp, &attr,
			  IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | (rc ? IBV_QP_ACCESS_FLAGS : IBV_QP_QKEY)))
		failed("INIT");
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .dest_qp_num = qp->qp_num, .path_mtu = IBV_MTU_1024,
				     .max_dest_rd_atomic = 1, .min_rnr_timer = 12,
				     .ah_attr = { .is_global = 1, .port_num = 1,
						  .grh = { .dgid = gid, .sgid_index = (uint8_t)gid_index, .hop_limit = 1 } } };
	if (ibv_modify_qp(qp, &attr,
			  IBV_QP_STATE | (rc ? IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
						       IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER
					     : 0)))
		failed("RTR");
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .rnr_retry = 7, .timeout = 14, .retry_cnt = 7,
				     .max_rd_atomic = 1 };
	if (ibv_modify_qp(qp, &attr,
			  IBV_QP_STATE | IBV_QP_SQ_PSN |
				  (rc ? IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC : 0)))
		failed("RTS");
}

static void receive(struct ibv_qp *qp, uint64_t wr_id)
{
	struct ibv_sge sge = { at(512), 256, mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = wr_id, .sg_list = &sge, .num_sge = 1 }, *bad;

	if ((errno = ibv_post_recv(qp, &wr, &bad)))
		failed("ibv_post_recv");
}

/* One completion, as the CQ shows it now. */
static void show(const struct ibv_qp *qp)
{
	unsigned int flags;

	printf("  wr_id %lu %s", (unsigned long)cq->wr_id, ibv_wc_status_str(cq->status));
	printf(", qp %s", ibv_wc_read_qp_num(cq) == qp->qp_num ? "ours" : "another");
	printf(", vendor error %u", ibv_wc_read_vendor_err(cq));
	if (cq->status == IBV_WC_SUCCESS) {
		flags = ibv_wc_read_wc_flags(cq);
		printf(", opcode %d, flags %u, slid %u, sl %u, path %u", (int)ibv_wc_read_opcode(cq), flags,
		       ibv_wc_read_slid(cq), ibv_wc_read_sl(cq), ibv_wc_read_dlid_path_bits(cq));
		if (ibv_wc_read_opcode(cq) & IBV_WC_RECV)
			printf(", %u bytes, from %s", ibv_wc_read_byte_len(cq),
			       ibv_wc_read_src_qp(cq) == qp->qp_num ? "ours" : "another");
		if (flags & IBV_WC_WITH_IMM)
			printf(", immediate %u", be32toh(ibv_wc_read_imm_data(cq)));
	}
	putchar('\n');
}

/* Takes this many completions, two in a walk, and shows them; and that there is no other. */
static void take(const struct ibv_qp *qp, int count)
{
	struct ibv_poll_cq_attr none = { 0 };
	time_t end = time(NULL) + SECONDS;

	while (count > 0) {
		int error = ibv_start_poll(cq, &none), taken = 0;

		if (error == ENOENT && time(NULL) < end)
			continue;
		if (error) {
			printf("  ibv_start_poll: %s\n", strerror(error));
			return;
		}
		do {
			show(qp);
			count--;
		} while (++taken < 2 && count && !(error = ibv_next_poll(cq)));
		if (error && error != ENOENT)
			printf("  ibv_next_poll: %s\n", strerror(error));
		ibv_end_poll(cq);
	}
	int error = ibv_start_poll(cq, &none);
	printf("  then %s\n", error == ENOENT ? "none" : error ? strerror(error) : "one more");
	if (!error)
		ibv_end_poll(cq);
}

static void words(const char *what, int first, int count)
{
	printf("  %s", what);
	for (int i = 0; i < count; i++)
		printf(" %lx", (unsigned long)memory[first + i]);
	putchar('\n');
}

static void complete(struct ibv_qp_ex *ex, const char *what, int completions, int first)
{
	int error = ibv_wr_complete(ex);

	printf("%s: %s\n", what, error ? strerror(error) : "posted");
	if (!error)
		take(&ex->qp_base, completions);
	words("memory", first, 4);
}

/* Begins a request whose data are four words that no other has sent. */
static void begin_with(struct ibv_qp_ex *ex, unsigned int flags)
{
	static uint64_t number;

	memset(memory + 256, 0, sizeof(memory) - 256 * sizeof(memory[0]));
	for (uint64_t i = 0; i < 4; i++)
		memory[i] = ++number << 8 | i;
	ibv_wr_start(ex);
	ex->wr_id = 1000 + number;
	ex->wr_flags = IBV_SEND_SIGNALED | flags;
}

static void begin(struct ibv_qp_ex *ex)
{
	begin_with(ex, 0);
}

/* ibv_wr_post(3) knows no such flag here, but without it Soft-RoCE's kernel side takes inline data for addresses. */
static void begin_inline(struct ibv_qp_ex *ex)
{
	begin_with(ex, IBV_SEND_INLINE);
}

static void set_sges(struct ibv_qp_ex *ex)
{
	struct ibv_sge list[3] = { { at(0), 8, mr->lkey }, { at(2), 8, mr->lkey }, { at(1), 16, mr->lkey } };

	ibv_wr_set_sge_list(ex, 3, list);
}

static void set_buffers(struct ibv_qp_ex *ex)
{
	struct ibv_data_buf list[2] = { { &memory[3], 8 }, { &memory[0], 16 } };

	ibv_wr_set_inline_data_list(ex, 2, list);
}

static void connected(void)
{
	struct ibv_qp_ex *ex = make_qp(
		IBV_QPT_RC, IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM | IBV_QP_EX_WITH_SEND |
				    IBV_QP_EX_WITH_SEND_WITH_IMM | IBV_QP_EX_WITH_SEND_WITH_INV | IBV_QP_EX_WITH_RDMA_READ |
				    IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD |
				    IBV_QP_EX_WITH_LOCAL_INV | IBV_QP_EX_WITH_BIND_MW);
	struct ibv_mw *window = ibv_alloc_mw(pd, IBV_MW_TYPE_2);

	if (!ex)
		return;
	connect_qp(&ex->qp_base);
	for (uint64_t i = 1; i <= 4; i++)
		receive(&ex->qp_base, i);

	begin(ex);
	ibv_wr_rdma_write(ex, mr->rkey, at(256));
	set_sges(ex);
	complete(ex, "ibv_wr_rdma_write, ibv_wr_set_sge_list", 1, 256);
	begin_inline(ex);
	ibv_wr_rdma_write_imm(ex, mr->rkey, at(260), htobe32(7));
	ibv_wr_set_inline_data(ex, &memory[1], 24);
	complete(ex, "ibv_wr_rdma_write_imm, ibv_wr_set_inline_data", 2, 260);
	begin_inline(ex);
	ibv_wr_send(ex);
	set_buffers(ex);
	complete(ex, "ibv_wr_send, ibv_wr_set_inline_data_list", 2, 512);
	begin(ex);
	ibv_wr_send_imm(ex, htobe32(8));
	ibv_wr_set_sge(ex, mr->lkey, at(0), 16);
	complete(ex, "ibv_wr_send_imm, ibv_wr_set_sge", 2, 512);
	begin(ex);
	ibv_wr_rdma_read(ex, mr->rkey, at(0));
	ibv_wr_set_sge(ex, mr->lkey, at(300), 32);
	complete(ex, "ibv_wr_rdma_read", 1, 300);
	begin(ex);
	memory[320] = 41;
	ibv_wr_atomic_fetch_add(ex, mr->rkey, at(320), 2);
	ibv_wr_set_sge(ex, mr->lkey, at(321), 8);
	ex->wr_id = 77;
	ibv_wr_atomic_cmp_swp(ex, mr->rkey, at(320), 43, 99);
	ibv_wr_set_sge(ex, mr->lkey, at(322), 8);
	complete(ex, "ibv_wr_atomic_fetch_add and ibv_wr_atomic_cmp_swp in one", 2, 320);

	begin(ex);
	ibv_wr_send(ex);
	ibv_wr_set_sge(ex, mr->lkey, at(0), 8);
	ibv_wr_abort(ex);
	puts("ibv_wr_abort");
	take(&ex->qp_base, 0);
	begin(ex);
	ex->wr_flags = 0;
	ibv_wr_rdma_write(ex, mr->rkey, at(256));
	ibv_wr_set_sge(ex, mr->lkey, at(0), 8);
	ex->wr_flags = IBV_SEND_SIGNALED | IBV_SEND_FENCE;
	ibv_wr_rdma_write(ex, mr->rkey, at(257));
	ibv_wr_set_sge(ex, mr->lkey, at(1), 8);
	complete(ex, "one without a signal and one with", 1, 256);

	printf("ibv_alloc_mw: %s\n", window ? "ok" : strerror(errno));
	if (window) {
		struct ibv_mw_bind_info whole = { .mr = mr, .addr = at(0), .length = sizeof(memory),
						  .mw_access_flags = IBV_ACCESS_REMOTE_WRITE };
		uint32_t key = ibv_inc_rkey(window->rkey);

		begin(ex);
		ibv_wr_bind_mw(ex, window, key, &whole);
		complete(ex, "ibv_wr_bind_mw", 1, 256);
		begin(ex);
		ibv_wr_rdma_write(ex, key, at(256));
		ibv_wr_set_sge(ex, mr->lkey, at(0), 32);
		complete(ex, "ibv_wr_rdma_write into the window", 1, 256);
		begin(ex);
		ibv_wr_send_inv(ex, key);
		ibv_wr_set_sge(ex, mr->lkey, at(0), 8);
		complete(ex, "ibv_wr_send_inv", 2, 512);
	}

	begin(ex);
	ibv_wr_rdma_write(ex, mr->rkey ^ 0x5a5a5a, at(256));
	ibv_wr_set_sge(ex, mr->lkey, at(0), 8);
	complete(ex, "a wrong key", 1, 256);
	begin(ex);
	ibv_wr_local_inv(ex, mr->rkey);
	complete(ex, "ibv_wr_local_inv on a queue pair that is in error", 1, 256);
	printf("ibv_destroy_qp: %d\n", ibv_destroy_qp(&ex->qp_base));
	printf("ibv_dealloc_mw: %d\n", window ? ibv_dealloc_mw(window) : 0);
}

static void datagrams(void)
{
	struct ibv_qp_ex *ex = make_qp(IBV_QPT_UD, IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM);
	struct ibv_ah_attr attr = { .is_global = 1, .port_num = 1,
				    .grh = { .dgid = gid, .sgid_index = (uint8_t)gid_index, .hop_limit = 1 } };
	struct ibv_ah *ah = ibv_create_ah(pd, &attr);

	printf("ibv_create_ah: %s\n", ah ? "ok" : strerror(errno));
	if (!ex || !ah)
		return;
	connect_qp(&ex->qp_base);
	receive(&ex->qp_base, 1);
	receive(&ex->qp_base, 2);
	begin(ex);
	ibv_wr_send(ex);
	ibv_wr_set_ud_addr(ex, ah, ex->qp_base.qp_num, QKEY);
	ibv_wr_set_sge(ex, mr->lkey, at(0), 32);
	complete(ex, "ibv_wr_send, ibv_wr_set_ud_addr", 2, 512 + 5);
	begin_inline(ex);
	ibv_wr_send_imm(ex, htobe32(9));
	ibv_wr_set_ud_addr(ex, ah, ex->qp_base.qp_num, QKEY);
	ibv_wr_set_inline_data(ex, &memory[0], 16);
	complete(ex, "ibv_wr_send_imm, ibv_wr_set_ud_addr", 2, 512 + 5);
	printf("ibv_destroy_qp: %d\n", ibv_destroy_qp(&ex->qp_base));
	printf("ibv_destroy_ah: %d\n", ibv_destroy_ah(ah));
}

static void refused(void)
{
	struct ibv_cq_init_attr_ex timed = { .cqe = 16, .wc_flags = STANDARD | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP };
	struct ibv_cq_init_attr_ex too_large = { .cqe = UINT32_MAX / 2, .wc_flags = STANDARD };
	struct ibv_cq_ex *one;

	errno = 0;
	one = ibv_create_cq_ex(context, &timed);
	printf("ibv_create_cq_ex with timestamps: %s\n", one ? "ok" : strerror(errno));
	errno = 0;
	one = ibv_create_cq_ex(context, &too_large);
	printf("ibv_create_cq_ex too large: %s\n", one ? "ok" : strerror(errno));
}

int main(int argc, char **argv)
{
	struct ibv_cq_init_attr_ex attr = { .cqe = 128, .wc_flags = STANDARD };
	struct ibv_device **list = ibv_get_device_list(NULL);

	if (argc != 3 || !list)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	gid_index = atoi(argv[2]);
	for (int i = 0; list[i] && !context; i++)
		if (!strcmp(ibv_get_device_name(list[i]), argv[1]))
			context = ibv_open_device(list[i]);
	ibv_free_device_list(list);
	if (!context || ibv_query_gid(context, 1, gid_index, &gid))
		failed(argv[1]);
	pd = ibv_alloc_pd(context);
	mr = pd ? ibv_reg_mr(pd, memory, sizeof(memory), ACCESS) : NULL;
	cq = mr ? ibv_create_cq_ex(context, &attr) : NULL;
	if (!cq)
		failed("ibv_create_cq_ex");
	connected();
	datagrams();
	refused();
	printf("ibv_destroy_cq: %d\n", ibv_destroy_cq(ibv_cq_ex_to_cq(cq)));
	printf("ibv_dereg_mr: %d\n", ibv_dereg_mr(mr));
	printf("ibv_dealloc_pd: %d\n", ibv_dealloc_pd(pd));
	printf("ibv_close_device: %d\n", ibv_close_device(context));
	return 0;
}
