/* Extended completion queues: one completion at a time, read by functions. */
#include <errno.h>
#include <time.h>

#include "soft.h"

#define READABLE                                                                                           \
	(IBV_WC_STANDARD_FLAGS | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK)

static struct soft_cq *soft_cq(struct ibv_cq_ex *ex)
{
	return (struct soft_cq *)ex;
}

static int show(struct soft_cq *cq)
{
	const struct rnic_completion *completion = rnic_ring_oldest(cq->ring, 0);

	if (!completion)
		return ENOENT;
	cq->current = completion;
	cq->ex.status = (enum ibv_wc_status)completion->status;
	cq->ex.wr_id = completion->wr_id;
	return 0;
}

static int start_poll(struct ibv_cq_ex *ex, struct ibv_poll_cq_attr *attr)
{
	struct soft_cq *cq = soft_cq(ex);
	struct device_link *link = soft_link(ex->context, "start_poll");

	if (attr->comp_mask)
		return EINVAL;
	if (!cq->single_threaded)
		pthread_mutex_lock(&cq->lock);
	int error = show(cq);
	/* Without a completion there is no walk to end. */
	if (error && !cq->single_threaded)
		pthread_mutex_unlock(&cq->lock);
	if (error)
		device_link_progress(link);
	return error;
}

static int next_poll(struct ibv_cq_ex *ex)
{
	struct soft_cq *cq = soft_cq(ex);

	if (cq->current)
		rnic_ring_take(cq->ring, 1);
	cq->current = NULL;
	return show(cq);
}

static void end_poll(struct ibv_cq_ex *ex)
{
	struct soft_cq *cq = soft_cq(ex);

	if (cq->current)
		rnic_ring_take(cq->ring, 1);
	cq->current = NULL;
	if (!cq->single_threaded)
		pthread_mutex_unlock(&cq->lock);
}

static enum ibv_wc_opcode read_opcode(struct ibv_cq_ex *ex) { return (enum ibv_wc_opcode)soft_cq(ex)->current->opcode; }
static uint32_t read_vendor_err(struct ibv_cq_ex *ex) { return soft_cq(ex)->current->vendor_error; }
static uint32_t read_byte_len(struct ibv_cq_ex *ex) { return soft_cq(ex)->current->bytes; }
static __be32 read_imm_data(struct ibv_cq_ex *ex) { return soft_cq(ex)->current->imm; }
static uint32_t read_qp_num(struct ibv_cq_ex *ex) { return soft_cq(ex)->current->qpn; }
static uint32_t read_src_qp(struct ibv_cq_ex *ex) { return soft_cq(ex)->current->source_qpn; }
static unsigned int read_wc_flags(struct ibv_cq_ex *ex) { return soft_cq(ex)->current->flags; }
static uint32_t read_slid(struct ibv_cq_ex *ex) { return soft_cq(ex)->current->slid; }
static uint8_t read_sl(struct ibv_cq_ex *ex) { return soft_cq(ex)->current->sl; }
static uint8_t read_path_bits(struct ibv_cq_ex *ex) { return soft_cq(ex)->current->path_bits; }
static uint64_t read_completion_ts(struct ibv_cq_ex *ex) { return soft_cq(ex)->current->time; }

static int64_t nanoseconds(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* The device counts by the monotonic clock. */
static uint64_t read_wallclock(struct ibv_cq_ex *ex)
{
	return (uint64_t)(nanoseconds(CLOCK_REALTIME) - nanoseconds(CLOCK_MONOTONIC) + (int64_t)soft_cq(ex)->current->time);
}

int soft_fill_cq_ex(struct soft_cq *cq, const struct ibv_cq_init_attr_ex *attr)
{
	const uint32_t known = IBV_CQ_INIT_ATTR_MASK_FLAGS | IBV_CQ_INIT_ATTR_MASK_PD;

	if (attr->wc_flags & ~(uint64_t)READABLE || attr->comp_mask & ~known ||
	    (attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS && attr->flags & ~(uint32_t)IBV_CREATE_CQ_ATTR_SINGLE_THREADED))
		return EOPNOTSUPP;
	cq->single_threaded = attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS &&
			      attr->flags & IBV_CREATE_CQ_ATTR_SINGLE_THREADED;
	struct ibv_cq_ex *ex = &cq->ex;
	ex->start_poll = start_poll;
	ex->next_poll = next_poll;
	ex->end_poll = end_poll;
	ex->read_opcode = read_opcode;
	ex->read_vendor_err = read_vendor_err;
	ex->read_wc_flags = read_wc_flags;
	ex->read_byte_len = read_byte_len;
	ex->read_imm_data = read_imm_data;
	ex->read_qp_num = read_qp_num;
	ex->read_src_qp = read_src_qp;
	ex->read_slid = read_slid;
	ex->read_sl = read_sl;
	ex->read_dlid_path_bits = read_path_bits;
	ex->read_completion_ts = read_completion_ts;
	ex->read_completion_wallclock_ns = read_wallclock;
	return 0;
}
