#include "queues.h"

#include <errno.h>
#include <stdlib.h>

#include "events.h"

#define MOST_HANDLES (1u << 24)

static int make_room(struct served_table *table, uint32_t handle)
{
	if (handle < table->room)
		return 0;
	if (handle >= MOST_HANDLES)
		return ENOSPC;
	uint32_t wanted = table->room ? table->room : 16;
	while (wanted <= handle)
		wanted *= 2;
	void **larger = realloc(table->at, wanted * sizeof(*larger));
	if (!larger)
		return ENOMEM;
	for (uint32_t i = table->room; i < wanted; i++)
		larger[i] = NULL;
	*table = (struct served_table){ larger, wanted };
	return 0;
}

int serve_create_channel(struct served *served, struct rnic_call *call)
{
	struct rnic_events *queue = served->ops->memory(served, call->channel.queue, sizeof(*queue));
	struct served_events *channel;
	uint32_t handle = 0;

	if (!queue)
		return EFAULT;
	while (served_at(&served->channels, handle))
		handle++;
	int error = make_room(&served->channels, handle);
	if (error)
		return error;
	int fd = served->ops->descriptor(served, call->channel.fd);
	if (fd < 0)
		return errno;
	if (!(channel = calloc(1, sizeof(*channel)))) {
		served->ops->close_descriptor(served, fd);
		return ENOMEM;
	}
	served_events_init(channel, queue, fd);
	served->channels.at[handle] = channel;
	call->handle = handle;
	return 0;
}

int serve_destroy_channel(struct served *served, struct rnic_call *call)
{
	struct served_events *channel = served_at(&served->channels, call->handle);

	if (!channel)
		return EINVAL;
	if (channel->users)
		return EBUSY;
	served_events_forget(channel, 0, 0);
	served->ops->close_descriptor(served, channel->fd);
	served->channels.at[call->handle] = NULL;
	free(channel);
	return 0;
}

/* A ring as the library has laid it out, all of it inside memory that both sides see. */
static int ring_at(struct served *served, rnic_reference reference, struct rnic_ring **ring)
{
	*ring = NULL;
	if (!reference)
		return 0;
	struct rnic_ring *head = served->ops->memory(served, reference, sizeof(*head));

	if (!head)
		return EFAULT;
	uint32_t stride = head->stride, slots = head->slots, depth = head->depth;

	if (!stride || stride % 8 || !slots || slots & (slots - 1) || depth > slots)
		return EINVAL;
	if (!served->ops->memory(served, reference, sizeof(*head) + (size_t)slots * stride))
		return EFAULT;
	*ring = head;
	return 0;
}

int serve_create_cq(struct served *served, struct rnic_call *call)
{
	struct served_events *channel = served_at(&served->channels, call->cq.channel);
	struct served_cq *cq = calloc(1, sizeof(*cq));
	int error = cq ? ring_at(served, call->cq.ring, &cq->ring) : ENOMEM;

	if (!error && (!cq->ring || (call->cq.channel != RNIC_NONE && !channel)))
		error = EINVAL;
	if (!error) {
		*cq = (struct served_cq){ served, channel, cq->ring, call->cq.cookie };
		error = rnic_create_cq(served->context, cq->ring, (uintptr_t)cq, &call->handle);
	}
	if (!error && (error = make_room(&served->cqs, call->handle)))
		rnic_destroy_cq(served->context, call->handle);
	if (error) {
		free(cq);
		return error;
	}
	if (channel)
		channel->users++;
	served->cqs.at[call->handle] = cq;
	return 0;
}

int serve_resize_cq(struct served *served, struct rnic_call *call)
{
	struct served_cq *cq = served_at(&served->cqs, call->handle);
	struct rnic_ring *ring;
	int error = cq ? ring_at(served, call->cq.ring, &ring) : EINVAL;

	if (!error && !ring)
		error = EINVAL;
	if (!error)
		error = rnic_resize_cq(served->context, call->handle, ring);
	if (!error)
		cq->ring = ring;
	return error;
}

int serve_destroy_cq(struct served *served, struct rnic_call *call)
{
	struct served_cq *cq = served_at(&served->cqs, call->handle);
	int error = cq ? rnic_destroy_cq(served->context, call->handle) : EINVAL;

	if (error)
		return error;
	if (cq->channel) {
		served_events_forget(cq->channel, RNIC_CQ, cq->cookie);
		cq->channel->users--;
	}
	served_events_forget(&served->async, RNIC_CQ, cq->cookie);
	served->cqs.at[call->handle] = NULL;
	free(cq);
	return 0;
}

int serve_create_srq(struct served *served, struct rnic_call *call)
{
	struct rnic_srq_init init = {
		.pd = call->srq.pd,
		.type = (enum ibv_srq_type)call->srq.type,
		.xrcd = call->srq.xrcd,
		.cq = call->srq.cq,
		.max_wr = call->srq.max_wr,
		.max_sge = call->srq.max_sge,
		.limit = call->srq.limit,
		.cookie = call->srq.cookie,
	};
	int error = ring_at(served, call->srq.ring, &init.ring);

	if (error || !init.ring)
		return error ? error : EINVAL;
	return rnic_create_srq(served->context, &init, &call->handle, &call->number);
}

int serve_modify_srq(struct served *served, struct rnic_call *call)
{
	struct rnic_ring *ring;
	uint32_t limit = call->srq.limit;
	int error = ring_at(served, call->srq.ring, &ring);

	return error ? error
		     : rnic_modify_srq(served->context, call->handle, call->srq.sets_limit ? &limit : NULL, ring);
}

int serve_create_qp(struct served *served, struct rnic_call *call)
{
	struct rnic_qp_init init = {
		.type = (enum ibv_qp_type)call->qp.type,
		.pd = call->qp.pd,
		.send_cq = call->qp.send_cq,
		.recv_cq = call->qp.recv_cq,
		.srq = call->qp.srq,
		.xrcd = call->qp.xrcd,
		.cap = call->qp.cap,
		.sq_sig_all = call->qp.sq_sig_all,
		.cookie = call->qp.cookie,
	};
	int error = ring_at(served, call->qp.sq, &init.sq);

	if (!error)
		error = ring_at(served, call->qp.rq, &init.rq);
	return error ? error : rnic_create_qp(served->context, &init, &call->handle, &call->number);
}
