/* The states of a QP: which changes there are, what each demands, what each does (IBTA 10.3; ib_modify_qp_is_ok). */
#include "internal.h"

#define CONNECTED_RTR (IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN)
#define RELIABLE_RTR (CONNECTED_RTR | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER)
#define RELIABLE_RTS (IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_SQ_PSN)
#define ALTERNATE (IBV_QP_ALT_PATH | IBV_QP_PATH_MIG_STATE)
#define PORT_CHANGE (IBV_QP_PKEY_INDEX | IBV_QP_PORT)

enum column { RC, UC, UD, INITIATOR, TARGET, COLUMNS };

static const struct {
	enum ibv_qp_state from, to;
	int required[COLUMNS], optional[COLUMNS];
} changes[] = {
	{ IBV_QPS_RESET, IBV_QPS_INIT,
	  { PORT_CHANGE | IBV_QP_ACCESS_FLAGS, PORT_CHANGE | IBV_QP_ACCESS_FLAGS, PORT_CHANGE | IBV_QP_QKEY,
	    PORT_CHANGE | IBV_QP_ACCESS_FLAGS, PORT_CHANGE | IBV_QP_ACCESS_FLAGS },
	  { 0, 0, 0, 0, 0 } },
	{ IBV_QPS_INIT, IBV_QPS_INIT,
	  { 0, 0, 0, 0, 0 },
	  { PORT_CHANGE | IBV_QP_ACCESS_FLAGS, PORT_CHANGE | IBV_QP_ACCESS_FLAGS, PORT_CHANGE | IBV_QP_QKEY,
	    PORT_CHANGE | IBV_QP_ACCESS_FLAGS, PORT_CHANGE | IBV_QP_ACCESS_FLAGS } },
	{ IBV_QPS_INIT, IBV_QPS_RTR,
	  { RELIABLE_RTR, CONNECTED_RTR, 0, CONNECTED_RTR, RELIABLE_RTR },
	  { IBV_QP_ALT_PATH | IBV_QP_ACCESS_FLAGS | IBV_QP_PKEY_INDEX, IBV_QP_ALT_PATH | IBV_QP_ACCESS_FLAGS | IBV_QP_PKEY_INDEX,
	    IBV_QP_PKEY_INDEX | IBV_QP_QKEY, IBV_QP_ALT_PATH | IBV_QP_ACCESS_FLAGS | IBV_QP_PKEY_INDEX,
	    IBV_QP_ALT_PATH | IBV_QP_ACCESS_FLAGS | IBV_QP_PKEY_INDEX } },
	{ IBV_QPS_RTR, IBV_QPS_RTS,
	  { RELIABLE_RTS, IBV_QP_SQ_PSN, IBV_QP_SQ_PSN, RELIABLE_RTS, IBV_QP_TIMEOUT | IBV_QP_SQ_PSN },
	  { IBV_QP_CUR_STATE | ALTERNATE | IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER,
	    IBV_QP_CUR_STATE | ALTERNATE | IBV_QP_ACCESS_FLAGS, IBV_QP_CUR_STATE | IBV_QP_QKEY,
	    IBV_QP_CUR_STATE | ALTERNATE | IBV_QP_ACCESS_FLAGS,
	    IBV_QP_CUR_STATE | ALTERNATE | IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER } },
	{ IBV_QPS_RTS, IBV_QPS_RTS,
	  { 0, 0, 0, 0, 0 },
	  { IBV_QP_CUR_STATE | ALTERNATE | IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER,
	    IBV_QP_CUR_STATE | ALTERNATE | IBV_QP_ACCESS_FLAGS, IBV_QP_CUR_STATE | IBV_QP_QKEY,
	    IBV_QP_CUR_STATE | ALTERNATE | IBV_QP_ACCESS_FLAGS,
	    IBV_QP_CUR_STATE | ALTERNATE | IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER } },
	{ IBV_QPS_RTS, IBV_QPS_SQD,
	  { 0, 0, 0, 0, 0 },
	  { IBV_QP_EN_SQD_ASYNC_NOTIFY, IBV_QP_EN_SQD_ASYNC_NOTIFY, IBV_QP_EN_SQD_ASYNC_NOTIFY, IBV_QP_EN_SQD_ASYNC_NOTIFY,
	    IBV_QP_EN_SQD_ASYNC_NOTIFY } },
	{ IBV_QPS_SQD, IBV_QPS_RTS,
	  { 0, 0, 0, 0, 0 },
	  { IBV_QP_CUR_STATE | ALTERNATE | IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER,
	    IBV_QP_CUR_STATE | ALTERNATE | IBV_QP_ACCESS_FLAGS, IBV_QP_CUR_STATE | IBV_QP_QKEY,
	    IBV_QP_CUR_STATE | ALTERNATE | IBV_QP_ACCESS_FLAGS,
	    IBV_QP_CUR_STATE | ALTERNATE | IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER } },
	{ IBV_QPS_SQD, IBV_QPS_SQD,
	  { 0, 0, 0, 0, 0 },
	  { IBV_QP_PORT | IBV_QP_AV | RELIABLE_RTS | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_PKEY_INDEX | ALTERNATE |
		    IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER,
	    IBV_QP_AV | ALTERNATE | IBV_QP_ACCESS_FLAGS | IBV_QP_PKEY_INDEX, IBV_QP_PKEY_INDEX | IBV_QP_QKEY,
	    IBV_QP_PORT | IBV_QP_AV | RELIABLE_RTS | IBV_QP_PKEY_INDEX | ALTERNATE | IBV_QP_ACCESS_FLAGS,
	    IBV_QP_PORT | IBV_QP_AV | IBV_QP_TIMEOUT | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_PKEY_INDEX | ALTERNATE |
		    IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER } },
	{ IBV_QPS_SQE, IBV_QPS_RTS,
	  { 0, 0, 0, 0, 0 },
	  { 0, IBV_QP_CUR_STATE | IBV_QP_ACCESS_FLAGS, IBV_QP_CUR_STATE | IBV_QP_QKEY, 0, 0 } },
};

static enum column column(const struct rnic_qp *qp)
{
	switch (qp->type) {
	case IBV_QPT_RC: return RC;
	case IBV_QPT_UC: return UC;
	case IBV_QPT_UD: return UD;
	case IBV_QPT_XRC_SEND: return INITIATOR;
	default: return TARGET;
	}
}

int rnic_check_transition(const struct rnic_qp *qp, enum ibv_qp_state from, enum ibv_qp_state to, int mask)
{
	/* From every state, with nothing else to say. */
	if (to == IBV_QPS_RESET || to == IBV_QPS_ERR)
		return mask & ~(IBV_QP_STATE | IBV_QP_CUR_STATE) ? EINVAL : 0;
	if (mask & IBV_QP_CUR_STATE && from != IBV_QPS_RTR && from != IBV_QPS_RTS && from != IBV_QPS_SQD && from != IBV_QPS_SQE)
		return EINVAL;
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		int required = changes[i].required[column(qp)], optional = changes[i].optional[column(qp)];

		if (changes[i].from != from || changes[i].to != to)
			continue;
		return (mask & required) != required || mask & ~(required | optional | IBV_QP_STATE) ? EINVAL : 0;
	}
	return EINVAL;
}

int rnic_check_attributes(const struct rnic_qp *qp, const struct ibv_qp_attr *attr, int mask)
{
	const uint64_t *settings = qp->device->settings;

	if ((mask & IBV_QP_PORT && attr->port_num != 1) || (mask & IBV_QP_PKEY_INDEX && attr->pkey_index != 0) ||
	    (mask & IBV_QP_AV && (attr->ah_attr.port_num != 1 || !attr->ah_attr.is_global ||
				  attr->ah_attr.grh.sgid_index >= settings[RNIC_SET_GID_TABLE])) ||
	    (mask & IBV_QP_PATH_MTU && (attr->path_mtu < IBV_MTU_256 || attr->path_mtu > settings[RNIC_SET_MTU])) ||
	    (mask & IBV_QP_MAX_QP_RD_ATOMIC && attr->max_rd_atomic > settings[RNIC_SET_MAX_INIT_RD_ATOM]) ||
	    (mask & IBV_QP_MAX_DEST_RD_ATOMIC && attr->max_dest_rd_atomic > settings[RNIC_SET_MAX_RD_ATOM]) ||
	    (mask & IBV_QP_TIMEOUT && attr->timeout > 31) || (mask & IBV_QP_MIN_RNR_TIMER && attr->min_rnr_timer > 31) ||
	    (mask & IBV_QP_RETRY_CNT && attr->retry_cnt > 7) || (mask & IBV_QP_RNR_RETRY && attr->rnr_retry > 7) ||
	    (mask & IBV_QP_DEST_QPN && attr->dest_qp_num > 0xffffff))
		return EINVAL;
	return 0;
}

static void take(struct rnic_qp *qp, const struct ibv_qp_attr *attr, int mask)
{
	struct ibv_qp_attr *own = &qp->attr;

	if (mask & IBV_QP_ACCESS_FLAGS)
		own->qp_access_flags = attr->qp_access_flags;
	if (mask & IBV_QP_PKEY_INDEX)
		own->pkey_index = attr->pkey_index;
	if (mask & IBV_QP_PORT)
		own->port_num = attr->port_num;
	if (mask & IBV_QP_QKEY)
		own->qkey = attr->qkey;
	if (mask & IBV_QP_AV) {
		own->ah_attr = attr->ah_attr;
		memcpy(qp->sgid, qp->device->gids[attr->ah_attr.grh.sgid_index].raw, 16);
	}
	if (mask & IBV_QP_PATH_MTU)
		own->path_mtu = attr->path_mtu;
	if (mask & IBV_QP_TIMEOUT)
		own->timeout = attr->timeout;
	if (mask & IBV_QP_RETRY_CNT)
		own->retry_cnt = attr->retry_cnt;
	if (mask & IBV_QP_RNR_RETRY)
		own->rnr_retry = attr->rnr_retry;
	if (mask & IBV_QP_MIN_RNR_TIMER)
		own->min_rnr_timer = attr->min_rnr_timer;
	if (mask & IBV_QP_RQ_PSN)
		qp->resp.psn = attr->rq_psn & RNIC_PSN_MASK;
	if (mask & IBV_QP_SQ_PSN)
		qp->req.psn = qp->req.acked = attr->sq_psn & RNIC_PSN_MASK;
	if (mask & IBV_QP_MAX_QP_RD_ATOMIC)
		own->max_rd_atomic = attr->max_rd_atomic;
	if (mask & IBV_QP_MAX_DEST_RD_ATOMIC)
		own->max_dest_rd_atomic = attr->max_dest_rd_atomic;
	if (mask & IBV_QP_DEST_QPN)
		own->dest_qp_num = attr->dest_qp_num;
	if (mask & IBV_QP_ALT_PATH) {
		own->alt_ah_attr = attr->alt_ah_attr;
		own->alt_pkey_index = attr->alt_pkey_index;
		own->alt_port_num = attr->alt_port_num;
		own->alt_timeout = attr->alt_timeout;
	}
	if (mask & IBV_QP_PATH_MIG_STATE)
		own->path_mig_state = attr->path_mig_state;
}

static void enter(struct rnic_qp *qp, enum ibv_qp_state to, const struct ibv_qp_attr *attr, int mask)
{
	switch (to) {
	case IBV_QPS_RESET:
		rnic_to_reset(qp);
		return;
	case IBV_QPS_ERR:
		rnic_to_error(qp);
		return;
	case IBV_QPS_SQD:
		if (qp->state == IBV_QPS_RTS) {
			qp->draining = true;
			qp->drain_event = mask & IBV_QP_EN_SQD_ASYNC_NOTIFY && attr->en_sqd_async_notify;
		}
		qp->state = to;
		rnic_retire(qp);
		return;
	case IBV_QPS_RTS:
		qp->draining = qp->drain_event = false;
		qp->state = to;
		rnic_runnable(qp);
		return;
	default:
		qp->state = to;
		/* Somebody may have sent to it too early. */
		if (to == IBV_QPS_RTR && qp->device->settings[RNIC_SET_WAIT_FOR_PEER])
			rnic_wake_parked(qp->device->fabric, rnic_qpn(qp));
	}
}

int rnic_modify_qp(struct rnic_context *context, uint32_t handle, const struct ibv_qp_attr *attr, int mask)
{
	struct rnic_qp *qp = rnic_qp_find(context, handle);
	enum ibv_qp_state to;
	int error;

	if (!qp)
		return EINVAL;
	to = mask & IBV_QP_STATE ? attr->qp_state : qp->state;
	if (mask & IBV_QP_CUR_STATE && attr->cur_qp_state != qp->state)
		return EINVAL;
	error = rnic_check_transition(qp, qp->state, to, mask);
	if (!error)
		error = rnic_check_attributes(qp, attr, mask);
	if (error)
		return error;
	take(qp, attr, mask);
	if (mask & IBV_QP_STATE)
		enter(qp, to, attr, mask);
	return 0;
}

int rnic_query_qp(struct rnic_context *context, uint32_t handle, struct ibv_qp_attr *attr)
{
	struct rnic_qp *qp = rnic_qp_find(context, handle);

	if (!qp)
		return EINVAL;
	*attr = qp->attr;
	attr->qp_state = attr->cur_qp_state = qp->state;
	attr->rq_psn = qp->resp.psn;
	attr->sq_psn = qp->req.psn;
	attr->sq_draining = qp->draining;
	attr->cap = qp->cap;
	return 0;
}

bool rnic_next_qp(const struct rnic_context *context, uint32_t *at, struct rnic_qp_shown *shown)
{
	const struct rnic_handles *handles = &context->handles[RNIC_QP];

	while (*at < handles->size) {
		const struct rnic_qp_ref *ref = handles->objects[(*at)++];

		if (!ref)
			continue;
		*shown = (struct rnic_qp_shown){ rnic_qpn(ref->qp), ref->qp->attr.dest_qp_num, ref->qp->type, ref->qp->state,
						 rnic_acknowledges(ref->qp) && ref->qp->state >= IBV_QPS_RTR };
		return true;
	}
	return false;
}
