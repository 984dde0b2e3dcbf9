#include "objects/cq_ex.h"

#include <errno.h>
#include <stdlib.h>

#include "base/verb_gate.h"
#include "objects/cq.h"
#include "objects/offer.h"
#include "path/poll.h"
#include "shadow/channel.h"
#include "shadow/marks.h"
#include "shadow/pd.h"

static struct mig_cq *cq_of_ex(struct ibv_cq_ex *ex)
{
	return MIG_CONTAINER(ex, struct mig_cq, ex);
}

static int take(struct mig_cq *cq)
{
	int count = mig_poll_cq(&cq->ibv, 1, &cq->current);

	if (count < 1)
		return count ? EIO : ENOENT;
	cq->ex.status = cq->current.status;
	cq->ex.wr_id = cq->current.wr_id;
	return 0;
}

static int start_poll(struct ibv_cq_ex *ex, struct ibv_poll_cq_attr *attr)
{
	struct mig_cq *cq = cq_of_ex(ex);
	int error;

	if (attr && attr->comp_mask)
		return EINVAL;
	mig_lock(&cq->walk);
	error = take(cq);
	/* A walk that finds nothing has not begun, and is not ended. */
	if (error)
		mig_unlock(&cq->walk);
	return error;
}

static int next_poll(struct ibv_cq_ex *ex) { return take(cq_of_ex(ex)); }
static void end_poll(struct ibv_cq_ex *ex) { mig_unlock(&cq_of_ex(ex)->walk); }
static enum ibv_wc_opcode read_opcode(struct ibv_cq_ex *ex) { return cq_of_ex(ex)->current.opcode; }
static uint32_t read_vendor_err(struct ibv_cq_ex *ex) { return cq_of_ex(ex)->current.vendor_err; }
static uint32_t read_byte_len(struct ibv_cq_ex *ex) { return cq_of_ex(ex)->current.byte_len; }
static __be32 read_imm_data(struct ibv_cq_ex *ex) { return cq_of_ex(ex)->current.imm_data; }
static uint32_t read_qp_num(struct ibv_cq_ex *ex) { return cq_of_ex(ex)->current.qp_num; }
static uint32_t read_src_qp(struct ibv_cq_ex *ex) { return cq_of_ex(ex)->current.src_qp; }
static unsigned int read_wc_flags(struct ibv_cq_ex *ex) { return cq_of_ex(ex)->current.wc_flags; }
static uint32_t read_slid(struct ibv_cq_ex *ex) { return cq_of_ex(ex)->current.slid; }
static uint8_t read_sl(struct ibv_cq_ex *ex) { return cq_of_ex(ex)->current.sl; }
static uint8_t read_dlid_path_bits(struct ibv_cq_ex *ex) { return cq_of_ex(ex)->current.dlid_path_bits; }

/* NULL and errno 0 for one that we cannot shadow. */
static struct ibv_cq_ex *create_shadow(struct mig_context *context, struct ibv_cq_init_attr_ex *attr)
{
	struct mig_cq *cq;

	/* Time stamps, VLANs, flow and matching tags are not in a plain completion. */
	if (attr->wc_flags & ~(uint64_t)IBV_WC_STANDARD_FLAGS ||
	    attr->comp_mask & ~(uint32_t)(IBV_CQ_INIT_ATTR_MASK_FLAGS | IBV_CQ_INIT_ATTR_MASK_PD) ||
	    (attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_PD && !mig_pd(attr->parent_domain))) {
		errno = 0;
		return NULL;
	}
	cq = calloc(1, sizeof(*cq));
	if (cq)
		cq->extended = calloc(1, sizeof(*cq->extended));
	if (!cq || !cq->extended) {
		free(cq);
		errno = ENOMEM;
		return NULL;
	}
	/* What is behind the mask may not be there: it belongs to newer programs. */
	*cq->extended = (struct ibv_cq_init_attr_ex){ .wc_flags = attr->wc_flags, .comp_mask = attr->comp_mask };
	if (attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS)
		cq->extended->flags = attr->flags;
	if (attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_PD)
		cq->extended->parent_domain = attr->parent_domain;
	cq->comp_vector = (int)attr->comp_vector;

	cq->real = mig_cq_make_sized(cq, context->real, mig_real_comp_channel(attr->channel), (int)attr->cqe);
	if (!cq->real) {
		int error = errno;

		free(cq->extended);
		free(cq);
		errno = error;
		return NULL;
	}
	cq->ibv.context = &context->verbs.context;
	cq->ibv.channel = attr->channel;
	cq->ibv.cq_context = attr->cq_context;
	cq->ex.start_poll = start_poll;
	cq->ex.next_poll = next_poll;
	cq->ex.end_poll = end_poll;
	cq->ex.read_opcode = read_opcode;
	cq->ex.read_vendor_err = read_vendor_err;
	cq->ex.read_byte_len = read_byte_len;
	cq->ex.read_imm_data = read_imm_data;
	cq->ex.read_qp_num = read_qp_num;
	cq->ex.read_src_qp = read_src_qp;
	cq->ex.read_wc_flags = read_wc_flags;
	cq->ex.read_slid = read_slid;
	cq->ex.read_sl = read_sl;
	cq->ex.read_dlid_path_bits = read_dlid_path_bits;
	mig_cq_add(context, cq);
	return &cq->ex;
}

static struct ibv_cq_ex *create_cq_ex(struct ibv_context *ibv, struct ibv_cq_init_attr_ex *attr)
{
	MIG_VERB;
	struct mig_context *context = mig_context(ibv);
	int saved = errno;

	errno = 0;
	struct ibv_cq_ex *cq = create_shadow(context, attr);

	if (cq || errno) {
		errno = cq ? saved : errno;
		return cq;
	}

	struct ibv_cq_init_attr_ex theirs = *attr;

	theirs.channel = mig_real_comp_channel(attr->channel);
	if (attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_PD)
		theirs.parent_domain = mig_real_pd(attr->parent_domain);
	if (attr->channel)
		__atomic_store_n(&context->has_foreign_cqs, 1, __ATOMIC_RELEASE);
	struct ibv_cq_ex *real = mig_real_operations(ibv)->create_cq_ex(context->real, &theirs);
	if (real)
		mig_mark(context, ibv_cq_ex_to_cq(real), "an extended CQ with more than standard completions");
	return real;
}

void mig_cq_ex_offer(struct mig_context *context)
{
	MIG_OFFER(context, create_cq_ex, create_cq_ex);
}
