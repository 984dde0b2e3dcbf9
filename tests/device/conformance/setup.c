/* Queue pairs in their states, requests, and what is said of completions. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "conformance.h"

struct options usual(void)
{
	return (struct options){ .type = IBV_QPT_RC, .rights = REMOTE_RIGHTS, .retry_cnt = 3, .rnr_retry = 7, .timeout = 13,
				 .depth = 16 };
}

struct ibv_qp *qp_new(struct bench *bench, struct options options)
{
	struct ibv_qp_init_attr init = { .send_cq = bench->send_cq, .recv_cq = bench->recv_cq, .srq = options.srq,
					 .qp_type = options.type,
					 .cap = { .max_send_wr = options.depth, .max_recv_wr = options.srq ? 0 : options.depth,
						  .max_send_sge = 4, .max_recv_sge = options.srq ? 0 : 4,
						  .max_inline_data = 64 } };
	struct ibv_qp *qp = ibv_create_qp(bench->pd, &init);

	must(qp, "a queue pair");
	return qp;
}

int to_init(struct ibv_qp *qp, struct options options)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = options.rights, .qkey = 0x1234 };

	return ibv_modify_qp(qp, &attr,
			     IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
				     (options.type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS));
}

int to_rtr(struct bench *bench, struct ibv_qp *qp, uint32_t peer)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = peer, .rq_psn = 100,
				    .max_dest_rd_atomic = 4, .min_rnr_timer = 1,
				    .ah_attr = { .is_global = 1, .port_num = 1,
						 .grh = { .dgid = bench->gid, .sgid_index = (uint8_t)bench->gid_index,
							  .hop_limit = 64 } } };
	int mask = IBV_QP_STATE;

	if (qp->qp_type != IBV_QPT_UD)
		mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
	if (qp->qp_type == IBV_QPT_RC || qp->qp_type == IBV_QPT_XRC_RECV)
		mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
	return ibv_modify_qp(qp, &attr, mask);
}

int to_rts(struct ibv_qp *qp, struct options options)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RTS, .sq_psn = 100, .timeout = options.timeout,
				    .retry_cnt = options.retry_cnt, .rnr_retry = options.rnr_retry, .max_rd_atomic = 4 };
	int mask = IBV_QP_STATE | IBV_QP_SQ_PSN;

	if (qp->qp_type == IBV_QPT_RC || qp->qp_type == IBV_QPT_XRC_SEND)
		mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
	return ibv_modify_qp(qp, &attr, mask);
}

int to(struct ibv_qp *qp, enum ibv_qp_state state)
{
	struct ibv_qp_attr attr = { .qp_state = state };

	return ibv_modify_qp(qp, &attr, IBV_QP_STATE);
}

struct pair pair_new(struct bench *bench, struct options options)
{
	struct pair pair = { qp_new(bench, options), NULL };
	struct options plain = options;

	/* The shared queue is the receiving end's. */
	plain.srq = NULL;
	pair.other = pair.one;
	pair.one = options.srq ? qp_new(bench, plain) : qp_new(bench, options);
	must(!to_init(pair.one, plain) && !to_init(pair.other, options), "INIT");
	must(!to_rtr(bench, pair.one, pair.other->qp_num) && !to_rtr(bench, pair.other, pair.one->qp_num), "RTR");
	must(!to_rts(pair.one, options) && !to_rts(pair.other, options), "RTS");
	return pair;
}

void pair_end(struct pair *pair)
{
	must(!ibv_destroy_qp(pair->one) && !ibv_destroy_qp(pair->other), "ending the queue pairs");
}

enum ibv_qp_state state_of(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_UNKNOWN };
	struct ibv_qp_init_attr init;

	must(!ibv_query_qp(qp, &attr, IBV_QP_STATE, &init), "asking for the state");
	return attr.qp_state;
}

struct ibv_sge sge(struct bench *bench, uint32_t offset, uint32_t length)
{
	return (struct ibv_sge){ (uintptr_t)bench->memory + offset, length, bench->mr->lkey };
}

int post_wr(struct ibv_qp *qp, struct ibv_send_wr *wr)
{
	struct ibv_send_wr *bad = NULL;
	int error = ibv_post_send(qp, wr, &bad);

	return error && !bad ? -1 : error;
}

int post(struct bench *bench, struct ibv_qp *qp, enum ibv_wr_opcode opcode, uint32_t offset, uint32_t length, uint32_t remote)
{
	struct ibv_sge one = sge(bench, offset, length);
	struct ibv_send_wr wr = { .wr_id = 7, .sg_list = &one, .num_sge = length ? 1 : 0, .opcode = opcode,
				  .send_flags = IBV_SEND_SIGNALED };

	wr.imm_data = 0x11223344;
	if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD || opcode == IBV_WR_ATOMIC_CMP_AND_SWP) {
		wr.wr.atomic.remote_addr = (uintptr_t)bench->memory + remote;
		wr.wr.atomic.rkey = bench->mr->rkey;
		wr.wr.atomic.compare_add = 5;
		wr.wr.atomic.swap = 9;
	} else {
		wr.wr.rdma.remote_addr = (uintptr_t)bench->memory + remote;
		wr.wr.rdma.rkey = bench->mr->rkey;
	}
	return post_wr(qp, &wr);
}

int receive(struct bench *bench, struct ibv_qp *qp, uint32_t offset, uint32_t length)
{
	struct ibv_sge one = sge(bench, offset, length);
	struct ibv_recv_wr wr = { .wr_id = 8, .sg_list = &one, .num_sge = 1 }, *bad;

	return ibv_post_recv(qp, &wr, &bad);
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static bool within(struct ibv_cq *cq, struct ibv_wc *wc, double most)
{
	for (double end = seconds() + most; seconds() < end; sched_yield()) {
		int count = ibv_poll_cq(cq, 1, wc);

		must(count >= 0, "polling");
		if (count)
			return true;
	}
	return false;
}

bool next(struct ibv_cq *cq, struct ibv_wc *wc) { return within(cq, wc, 3); }

bool quiet(struct ibv_cq *cq)
{
	struct ibv_wc wc;

	return !within(cq, &wc, 0.1);
}

bool told(struct bench *bench, int milliseconds)
{
	struct pollfd ready = { bench->channel->fd, POLLIN, 0 };
	struct ibv_cq *cq;
	void *cookie;

	if (poll(&ready, 1, milliseconds) != 1)
		return false;
	must(!ibv_get_cq_event(bench->channel, &cq, &cookie), "the event");
	ibv_ack_cq_events(cq, 1);
	return true;
}

const char *status_name(int status)
{
	static const char *const names[] = {
		"success", "local-length", "local-qp-operation", "local-eec", "local-protection", "flushed", "bind", "bad-response",
		"local-access", "remote-invalid", "remote-access", "remote-operation", "retries-exceeded", "rnr-retries-exceeded",
	};

	return (size_t)status < sizeof(names) / sizeof(names[0]) ? names[status] : "other";
}

const char *state_name(enum ibv_qp_state state)
{
	static const char *const names[] = { "RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR" };

	return (size_t)state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}

static const char *opcode_name(enum ibv_wc_opcode opcode)
{
	switch (opcode) {
	case IBV_WC_SEND: return "send";
	case IBV_WC_RDMA_WRITE: return "write";
	case IBV_WC_RDMA_READ: return "read";
	case IBV_WC_COMP_SWAP: return "swap";
	case IBV_WC_FETCH_ADD: return "add";
	case IBV_WC_BIND_MW: return "bind-window";
	case IBV_WC_LOCAL_INV: return "invalidate";
	case IBV_WC_RECV: return "receive";
	case IBV_WC_RECV_RDMA_WITH_IMM: return "receive-of-write";
	default: return "other";
	}
}

void say_next(struct bench *bench, struct ibv_cq *cq, const char *who)
{
	struct ibv_wc wc;

	if (!next(cq, &wc)) {
		say("%s=nothing", who);
		return;
	}
	say("%s=%s", who, status_name((int)wc.status));
	/* With an error only the status, wr_id and qp_num are defined. */
	if (wc.status != IBV_WC_SUCCESS)
		return;
	say("%s", opcode_name(wc.opcode));
	if (cq != bench->recv_cq)
		return;
	say("%u bytes", wc.byte_len);
	if (wc.wc_flags & IBV_WC_WITH_IMM)
		say("imm=%x", wc.imm_data);
	if (wc.wc_flags & IBV_WC_WITH_INV)
		say("invalidated");
}

void say_error(const char *what, int error)
{
	static const struct {
		int error;
		const char *name;
	} names[] = { { 0, "ok" }, { EINVAL, "EINVAL" }, { ENOMEM, "ENOMEM" }, { EBUSY, "EBUSY" }, { EOPNOTSUPP, "EOPNOTSUPP" },
		      { ENOSYS, "ENOSYS" }, { EPERM, "EPERM" }, { EFAULT, "EFAULT" }, { EAGAIN, "EAGAIN" }, { EIO, "EIO" } };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].error == error) {
			say("%s=%s", what, names[i].name);
			return;
		}
	say("%s=%d", what, error);
}

void say_state(const char *who, struct ibv_qp *qp) { say("%s=%s", who, state_name(state_of(qp))); }

const char *next_event(struct bench *bench)
{
	struct pollfd ready = { bench->context->async_fd, POLLIN, 0 };
	struct ibv_async_event event;

	if (poll(&ready, 1, 1000) != 1 || ibv_get_async_event(bench->context, &event))
		return "none";
	ibv_ack_async_event(&event);
	switch (event.event_type) {
	case IBV_EVENT_CQ_ERR: return "cq-error";
	case IBV_EVENT_QP_FATAL: return "qp-fatal";
	case IBV_EVENT_QP_REQ_ERR: return "qp-request-error";
	case IBV_EVENT_QP_ACCESS_ERR: return "qp-access-error";
	case IBV_EVENT_COMM_EST: return "communication-established";
	case IBV_EVENT_SQ_DRAINED: return "sq-drained";
	case IBV_EVENT_SRQ_LIMIT_REACHED: return "srq-limit";
	case IBV_EVENT_QP_LAST_WQE_REACHED: return "last-wqe";
	default: return "other";
	}
}
