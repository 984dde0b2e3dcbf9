/* ibv_wr_*: requests are built one after the other and posted together, or not at all. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"

#define MOST 16

struct fake_builder {
	struct ibv_send_wr wrs[MOST];
	struct ibv_sge sges[MOST][8];
	unsigned char data[MOST][128];
	int count, error;
};

static struct fake_builder *builder(struct ibv_qp_ex *ex)
{
	return ((struct fake_qp *)ex)->builder;
}

static struct ibv_send_wr *begin(struct ibv_qp_ex *ex, enum ibv_wr_opcode opcode)
{
	struct fake_builder *b = builder(ex);
	struct ibv_send_wr *wr = &b->wrs[b->count < MOST ? b->count : MOST - 1];

	fake_check(ex->qp_base.context, "wr");
	if (b->count == MOST)
		b->error = ENOMEM;
	else
		b->count++;
	memset(wr, 0, sizeof(*wr));
	wr->wr_id = ex->wr_id;
	wr->opcode = opcode;
	wr->send_flags = ex->wr_flags;
	return wr;
}

static struct ibv_send_wr *last(struct ibv_qp_ex *ex) { return &builder(ex)->wrs[builder(ex)->count - 1]; }

static void start(struct ibv_qp_ex *ex) { builder(ex)->count = builder(ex)->error = 0; }
static void forget(struct ibv_qp_ex *ex) { builder(ex)->count = 0; }

static int complete(struct ibv_qp_ex *ex)
{
	struct fake_builder *b = builder(ex);
	struct fake_qp *qp = (struct fake_qp *)ex;
	struct ibv_send_wr *bad;

	for (int i = 0; i + 1 < b->count; i++)
		b->wrs[i].next = &b->wrs[i + 1];
	if (!b->error && qp->sq_tail - qp->sq_head + (uint32_t)b->count > qp->init.cap.max_send_wr)
		b->error = ENOMEM;
	return b->error || !b->count ? b->error : fake_post_send(&qp->ibv, b->wrs, &bad);
}

static void remote(struct ibv_qp_ex *ex, enum ibv_wr_opcode opcode, uint32_t rkey, uint64_t addr, __be32 imm)
{
	struct ibv_send_wr *wr = begin(ex, opcode);

	wr->wr.rdma.rkey = rkey;
	wr->wr.rdma.remote_addr = addr;
	wr->imm_data = imm;
}

static void wr_write(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t addr) { remote(ex, IBV_WR_RDMA_WRITE, rkey, addr, 0); }
static void wr_read(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t addr) { remote(ex, IBV_WR_RDMA_READ, rkey, addr, 0); }
static void wr_write_imm(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t addr, __be32 imm)
{
	remote(ex, IBV_WR_RDMA_WRITE_WITH_IMM, rkey, addr, imm);
}
static void wr_send(struct ibv_qp_ex *ex) { begin(ex, IBV_WR_SEND); }
static void wr_send_imm(struct ibv_qp_ex *ex, __be32 imm) { begin(ex, IBV_WR_SEND_WITH_IMM)->imm_data = imm; }

static void wr_fetch_add(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t addr, uint64_t add)
{
	struct ibv_send_wr *wr = begin(ex, IBV_WR_ATOMIC_FETCH_AND_ADD);

	wr->wr.atomic.rkey = rkey;
	wr->wr.atomic.remote_addr = addr;
	wr->wr.atomic.compare_add = add;
}

static void set_sge_list(struct ibv_qp_ex *ex, size_t count, const struct ibv_sge *sges)
{
	struct ibv_send_wr *wr = last(ex);
	struct ibv_sge *own = builder(ex)->sges[builder(ex)->count - 1];

	memcpy(own, sges, count * sizeof(*sges));
	wr->sg_list = own;
	wr->num_sge = (int)count;
}

static void set_sge(struct ibv_qp_ex *ex, uint32_t lkey, uint64_t addr, uint32_t length)
{
	struct ibv_sge sge = { addr, length, lkey };

	set_sge_list(ex, 1, &sge);
}

static void set_inline_list(struct ibv_qp_ex *ex, size_t count, const struct ibv_data_buf *buffers)
{
	unsigned char *data = builder(ex)->data[builder(ex)->count - 1], *end = data;

	for (size_t i = 0; i < count; i++) {
		memcpy(end, buffers[i].addr, buffers[i].length);
		end += buffers[i].length;
	}
	set_sge(ex, 0, (uintptr_t)data, (uint32_t)(end - data));
	last(ex)->send_flags |= IBV_SEND_INLINE;
}

static void set_inline(struct ibv_qp_ex *ex, void *addr, size_t length)
{
	struct ibv_data_buf buffer = { addr, length };

	set_inline_list(ex, 1, &buffer);
}

/* For other kinds of QPs; the real one keeps them in the request. */
static void set_ud_addr(struct ibv_qp_ex *ex, struct ibv_ah *ah, uint32_t qpn, uint32_t qkey)
{
	if (ah && ah->context != ex->qp_base.context)
		abort();
	(void)qpn, (void)qkey;
}

static void set_xrc_srqn(struct ibv_qp_ex *ex, uint32_t srqn) { (void)ex, (void)srqn; }

struct ibv_qp *fake_create_qp_ex(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr)
{
	struct ibv_qp_init_attr plain = { .qp_context = attr->qp_context, .send_cq = attr->send_cq,
					  .recv_cq = attr->recv_cq, .srq = attr->srq, .cap = attr->cap,
					  .qp_type = attr->qp_type, .sq_sig_all = attr->sq_sig_all };
	struct ibv_qp *qp;

	if (!(attr->comp_mask & IBV_QP_INIT_ATTR_PD) || attr->pd->context != context) {
		errno = EINVAL;
		return NULL;
	}
	qp = ibv_create_qp(attr->pd, &plain);
	attr->cap = plain.cap;
	if (!qp || !(attr->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS))
		return qp;

	struct ibv_qp_ex *ex = &((struct fake_qp *)qp)->ex;
	((struct fake_qp *)qp)->builder = calloc(1, sizeof(struct fake_builder));
	ex->wr_start = start;
	ex->wr_complete = complete;
	ex->wr_abort = forget;
	ex->wr_rdma_write = wr_write;
	ex->wr_rdma_write_imm = wr_write_imm;
	ex->wr_rdma_read = wr_read;
	ex->wr_send = wr_send;
	ex->wr_send_imm = wr_send_imm;
	ex->wr_atomic_fetch_add = wr_fetch_add;
	ex->wr_set_sge = set_sge;
	ex->wr_set_sge_list = set_sge_list;
	ex->wr_set_inline_data = set_inline;
	ex->wr_set_inline_data_list = set_inline_list;
	ex->wr_set_ud_addr = set_ud_addr;
	ex->wr_set_xrc_srqn = set_xrc_srqn;
	return qp;
}

struct ibv_qp_ex *ibv_qp_to_qp_ex(struct ibv_qp *qp)
{
	struct fake_qp *own = (struct fake_qp *)qp;

	/* Behind the public part, as a real one: something else than a QP of its own would show. */
	if (!own->sq)
		abort();
	return own->builder ? &own->ex : NULL;
}
