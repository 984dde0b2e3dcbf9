/*
 * A libibverbs.so.1 whose data path does nothing: posting always works, polling finds one completion of a receive per
 * entry asked for, of the queue's QPs in turn; where they share their receives, of the oldest that was posted. It has what it takes to be moved: every new object has other numbers.
 */
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#undef ibv_reg_mr
#undef ibv_query_port

#define SHARED 4096

struct shared {
	struct ibv_srq ibv;
	uint64_t names[SHARED];
	uint32_t head, tail;
};

struct queue {
	struct ibv_cq ibv;
	struct shared *shared;
	uint32_t numbers[1024], count, next;
};

static struct ibv_device device = { .name = "none0" };
static struct ibv_device *devices[] = { &device, NULL };
static uint32_t next_key = 1, next_qpn = 17;

/* Nothing completes before something was posted: a process that is moved has drained. */
static int posted;

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	(void)qp, (void)wr, (void)bad;
	posted = 1;
	return 0;
}

static int post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	(void)qp, (void)wr, (void)bad;
	return 0;
}

static int post_srq_recv(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct shared *shared = (struct shared *)srq;

	(void)bad;
	for (; wr; wr = wr->next)
		shared->names[shared->tail++ % SHARED] = wr->wr_id;
	return 0;
}

static int poll_cq(struct ibv_cq *cq, int entries, struct ibv_wc *wc)
{
	struct queue *queue = (struct queue *)cq;

	if (!posted)
		return 0;
	for (int i = 0; i < entries; i++) {
		if (queue->shared) {
			if (queue->shared->head == queue->shared->tail)
				return i;
			wc[i].wr_id = queue->shared->names[queue->shared->head++ % SHARED];
		}
		wc[i].status = IBV_WC_SUCCESS;
		wc[i].opcode = IBV_WC_RECV;
		wc[i].qp_num = queue->numbers[queue->next];
		wc[i].src_qp = 1;
		queue->next = queue->next + 1 == queue->count ? 0 : queue->next + 1;
	}
	return entries;
}

static int req_notify_cq(struct ibv_cq *cq, int solicited_only)
{
	(void)cq, (void)solicited_only;
	return 0;
}

struct ibv_device **ibv_get_device_list(int *count)
{
	if (count)
		*count = 1;
	return devices;
}

void ibv_free_device_list(struct ibv_device **list) { (void)list; }
__be64 ibv_get_device_guid(struct ibv_device *ibv) { (void)ibv; return 1; }

/* A request that is built: the functions that one of eight bytes takes. */
static void wr_start(struct ibv_qp_ex *qp) { (void)qp; }
static void wr_rdma_write(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t addr) { (void)qp, (void)rkey, (void)addr; }

static void wr_set_sge(struct ibv_qp_ex *qp, uint32_t lkey, uint64_t addr, uint32_t length)
{
	(void)qp, (void)lkey, (void)addr, (void)length;
}

static int wr_complete(struct ibv_qp_ex *qp)
{
	(void)qp;
	posted = 1;
	return 0;
}

static struct ibv_qp *create_qp_ex(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr)
{
	struct ibv_qp_init_attr plain = { attr->qp_context, attr->send_cq, attr->recv_cq, attr->srq,
					  attr->cap, attr->qp_type, attr->sq_sig_all };
	struct ibv_qp_ex *qp = (struct ibv_qp_ex *)ibv_create_qp(attr->pd, &plain);

	(void)context;
	qp->wr_start = wr_start;
	qp->wr_rdma_write = wr_rdma_write;
	qp->wr_set_sge = wr_set_sge;
	qp->wr_complete = wr_complete;
	return &qp->qp_base;
}

struct ibv_qp_ex *ibv_qp_to_qp_ex(struct ibv_qp *qp) { return (struct ibv_qp_ex *)qp; }

/* A device without them has no XRC that could be moved; none is made. */
static struct ibv_mw *alloc_mw(struct ibv_pd *pd, enum ibv_mw_type type)
{
	(void)pd, (void)type;
	return NULL;
}

struct ibv_context *ibv_open_device(struct ibv_device *ibv)
{
	struct verbs_context *verbs = calloc(1, sizeof(*verbs));
	struct ibv_context *context = &verbs->context;
	int ends[2];

	verbs->sz = sizeof(*verbs);
	verbs->create_qp_ex = create_qp_ex;
	context->abi_compat = __VERBS_ABI_IS_EXTENDED;
	context->device = ibv;
	context->ops.post_send = post_send;
	context->ops.alloc_mw = alloc_mw;
	context->ops.post_recv = post_recv;
	context->ops.post_srq_recv = post_srq_recv;
	context->ops.poll_cq = poll_cq;
	context->ops.req_notify_cq = req_notify_cq;
	context->num_comp_vectors = 1;
	context->cmd_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	context->async_fd = pipe(ends) ? -1 : ends[0];
	return context;
}

int ibv_close_device(struct ibv_context *context)
{
	close(context->cmd_fd);
	close(context->async_fd);
	free(verbs_get_ctx(context));
	return 0;
}

int ibv_query_gid(struct ibv_context *context, uint8_t port, int index, union ibv_gid *gid)
{
	(void)context, (void)port, (void)index;
	memset(gid, 1, sizeof(*gid));
	return 0;
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
	struct ibv_pd *pd = calloc(1, sizeof(*pd));

	pd->context = context;
	return pd;
}

int ibv_dealloc_pd(struct ibv_pd *pd) { free(pd); return 0; }

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
	struct ibv_mr *mr = calloc(1, sizeof(*mr));
	uint32_t key = next_key += 0x100;

	(void)access;
	*mr = (struct ibv_mr){ .context = pd->context, .pd = pd, .addr = addr, .length = length, .lkey = key, .rkey = key };
	return mr;
}

int ibv_dereg_mr(struct ibv_mr *mr) { free(mr); return 0; }

struct ibv_cq *ibv_create_cq(struct ibv_context *context, int entries, void *cq_context,
			     struct ibv_comp_channel *channel, int vector)
{
	struct queue *queue = calloc(1, sizeof(*queue));

	(void)vector;
	queue->ibv = (struct ibv_cq){ .context = context, .channel = channel, .cq_context = cq_context, .cqe = entries };
	return &queue->ibv;
}

int ibv_destroy_cq(struct ibv_cq *cq) { free(cq); return 0; }

struct ibv_srq *ibv_create_srq(struct ibv_pd *pd, struct ibv_srq_init_attr *attr)
{
	struct shared *shared = calloc(1, sizeof(*shared));

	shared->ibv = (struct ibv_srq){ .context = pd->context, .pd = pd, .srq_context = attr->srq_context };
	return &shared->ibv;
}

int ibv_query_srq(struct ibv_srq *srq, struct ibv_srq_attr *attr)
{
	(void)srq;
	*attr = (struct ibv_srq_attr){ .max_wr = SHARED, .max_sge = 1 };
	return 0;
}

int ibv_destroy_srq(struct ibv_srq *srq) { free(srq); return 0; }

struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
	struct ibv_qp *qp = calloc(1, sizeof(struct ibv_qp_ex));
	struct queue *queue = (struct queue *)attr->recv_cq;

	*qp = (struct ibv_qp){ .context = pd->context, .pd = pd, .send_cq = attr->send_cq, .recv_cq = attr->recv_cq,
			       .qp_context = attr->qp_context, .qp_num = next_qpn++, .qp_type = attr->qp_type };
	queue->numbers[queue->count++] = qp->qp_num;
	queue->shared = (struct shared *)attr->srq;
	return qp;
}

int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	if (mask & IBV_QP_STATE)
		qp->state = attr->qp_state;
	return 0;
}

int ibv_query_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init)
{
	(void)mask;
	memset(attr, 0, sizeof(*attr));
	memset(init, 0, sizeof(*init));
	attr->qp_state = qp->state;
	return 0;
}

int ibv_destroy_qp(struct ibv_qp *qp) { free(qp); return 0; }

struct ibv_ah *ibv_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr)
{
	struct ibv_ah *ah = calloc(1, sizeof(*ah));

	(void)attr;
	ah->context = pd->context;
	ah->pd = pd;
	return ah;
}

int ibv_destroy_ah(struct ibv_ah *ah) { free(ah); return 0; }

int ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *event)
{
	return read(context->async_fd, event, sizeof(*event)) == (ssize_t)sizeof(*event) ? 0 : -1;
}

void ibv_ack_async_event(struct ibv_async_event *event) { (void)event; }
