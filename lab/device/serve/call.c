/* Each call, answered by the engine. What comes from the application is checked before it is used: it shares the record. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "events.h"
#include "queues.h"
#include "serve.h"

static int memory_region(struct served *served, struct rnic_call *call)
{
	struct rnic_context *context = served->context;

	if (call->name == CALL_REG_MR)
		return rnic_reg_mr(context, call->mr.pd, call->mr.address, call->mr.length, call->mr.iova, call->mr.access,
				   &call->handle, &call->mr.lkey, &call->mr.rkey);
	if (call->name == CALL_REREG_MR)
		return rnic_rereg_mr(context, call->handle, call->mr.flags, call->mr.pd, call->mr.address, call->mr.length,
				     call->mr.access, &call->mr.lkey, &call->mr.rkey);
	return rnic_dereg_mr(context, call->handle);
}

static int other_memory(struct served *served, struct rnic_call *call)
{
	struct rnic_context *context = served->context;

	switch (call->name) {
	case CALL_ALLOC_PD:
		return rnic_alloc_pd(context, &call->handle);
	case CALL_DEALLOC_PD:
		return rnic_dealloc_pd(context, call->handle);
	case CALL_ALLOC_MW:
		return rnic_alloc_mw(context, call->mw.pd, (enum ibv_mw_type)call->mw.type, &call->handle, &call->mw.rkey);
	case CALL_DEALLOC_MW:
		return rnic_dealloc_mw(context, call->handle);
	case CALL_OPEN_XRCD:
		return rnic_open_xrcd(context, call->xrcd.name, call->xrcd.flags, &call->handle);
	case CALL_CLOSE_XRCD:
		return rnic_close_xrcd(context, call->handle);
	case CALL_CREATE_AH: {
		struct rnic_route route = call->ah.route;

		return rnic_create_ah(context, call->ah.pd, &route, &call->handle);
	}
	default:
		return rnic_destroy_ah(context, call->handle);
	}
}

static int look(struct served *served, struct rnic_call *call)
{
	switch (call->name) {
	case CALL_QUERY_DEVICE:
		rnic_query_device(served->device, &call->device_attr);
		return 0;
	case CALL_QUERY_PORT:
		rnic_query_port(served->device, &call->port_attr);
		return 0;
	default:
		return rnic_gid_get(served->device, call->gid.index, call->gid.gid, &call->gid.type, &call->gid.ifindex);
	}
}

static int queue_pair(struct served *served, struct rnic_call *call)
{
	struct rnic_context *context = served->context;
	struct ibv_qp_attr attr;
	int error;

	switch (call->name) {
	case CALL_QP_CAPS: {
		struct ibv_qp_cap cap = call->caps.cap;

		error = rnic_qp_caps(served->device, (enum ibv_qp_type)call->caps.type, &cap, &call->caps.sq_stride,
				     &call->caps.rq_stride);
		call->caps.cap = cap;
		return error;
	}
	case CALL_OPEN_QP:
		call->number = call->open_qp.qpn;
		return rnic_open_qp(context, call->open_qp.xrcd, call->open_qp.qpn, call->open_qp.cookie, &call->handle);
	case CALL_MODIFY_QP:
		attr = call->qp_attr.attr;
		return rnic_modify_qp(context, call->handle, &attr, call->qp_attr.mask);
	case CALL_QUERY_QP:
		memset(&attr, 0, sizeof(attr));
		error = rnic_query_qp(context, call->handle, &attr);
		call->qp_attr.attr = attr;
		return error;
	case CALL_ATTACH:
		return rnic_attach(context, call->handle, call->mcast.gid, (uint16_t)call->mcast.lid);
	case CALL_DETACH:
		return rnic_detach(context, call->handle, call->mcast.gid, (uint16_t)call->mcast.lid);
	default:
		return rnic_destroy_qp(context, call->handle);
	}
}

static int catch_up(struct served *served)
{
	served_events_catch_up(&served->async);
	for (uint32_t i = 0; i < served->channels.room; i++)
		if (served->channels.at[i])
			served_events_catch_up(served->channels.at[i]);
	return 0;
}

static int answer(struct served *served, struct rnic_call *call)
{
	switch (call->name) {
	case CALL_QUERY_DEVICE:
	case CALL_QUERY_PORT:
	case CALL_QUERY_GID:
		return look(served, call);
	case CALL_ALLOC_PD:
	case CALL_DEALLOC_PD:
	case CALL_OPEN_XRCD:
	case CALL_CLOSE_XRCD:
	case CALL_ALLOC_MW:
	case CALL_DEALLOC_MW:
	case CALL_CREATE_AH:
	case CALL_DESTROY_AH:
		return other_memory(served, call);
	case CALL_REG_MR:
	case CALL_REREG_MR:
	case CALL_DEREG_MR:
		return memory_region(served, call);
	case CALL_CREATE_CHANNEL:
		return serve_create_channel(served, call);
	case CALL_DESTROY_CHANNEL:
		return serve_destroy_channel(served, call);
	case CALL_CREATE_CQ:
		return serve_create_cq(served, call);
	case CALL_RESIZE_CQ:
		return serve_resize_cq(served, call);
	case CALL_DESTROY_CQ:
		return serve_destroy_cq(served, call);
	case CALL_CREATE_SRQ:
		return serve_create_srq(served, call);
	case CALL_MODIFY_SRQ:
		return serve_modify_srq(served, call);
	case CALL_QUERY_SRQ:
		return rnic_query_srq(served->context, call->handle, &call->srq_attr);
	case CALL_DESTROY_SRQ:
		return rnic_destroy_srq(served->context, call->handle);
	case CALL_CREATE_QP:
		return serve_create_qp(served, call);
	case CALL_QP_CAPS:
	case CALL_OPEN_QP:
	case CALL_MODIFY_QP:
	case CALL_QUERY_QP:
	case CALL_DESTROY_QP:
	case CALL_ATTACH:
	case CALL_DETACH:
		return queue_pair(served, call);
	case CALL_DOORBELL:
		return call->number ? rnic_srq_doorbell(served->context, call->handle)
				    : rnic_doorbell(served->context, call->handle);
	case CALL_EVENTS:
		return catch_up(served);
	case CALL_DATA_PATH:
	case CALL_CLOSE:
		return 0; /* all there is to them is the verdict, or done by whoever holds the context */
	default:
		return ENOSYS;
	}
}

void serve_call(struct served *served, struct rnic_call *call)
{
	call->error = answer(served, call);
}
