/* The requester's two timers: for an answer, and for a receiver that was not ready; and those who wait without one. */
#include "internal.h"

/* IBTA table 46: the RNR timer's codes in units of 10 us. */
static const uint32_t rnr_times[32] = {
	65536, 1,   2,	 3,   4,    6,	  8,	12,   16,   24,	  32,	48,    64,    96,    128,   192,
	256,   384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152,
};

void rnic_feed(struct rnic_qp *qp)
{
	qp->resp.starving = false;
	if (qp->device->settings[RNIC_SET_WAIT_FOR_PEER])
		rnic_wake_parked(qp->device->fabric, rnic_qpn(qp));
}

/* The receive may have been posted while the word that there was none was under way: nobody would wake who parks then. */
static bool still_starves(const struct rnic_qp *qp)
{
	const struct rnic_device *device = rnic_device_of(qp->device->fabric, qp->attr.ah_attr.grh.dgid.raw);
	const struct rnic_link *link = device ? rnic_table_find(&device->qps, qp->attr.dest_qp_num) : NULL;

	return !link || rnic_of(link, struct rnic_qp, link)->resp.starving;
}

void rnic_wait_for_receive(struct rnic_qp *qp, uint8_t code)
{
	struct rnic_requester *req = &qp->req;
	struct rnic_fabric *fabric = qp->device->fabric;

	if (qp->device->settings[RNIC_SET_WAIT_FOR_PEER]) {
		if (still_starves(qp))
			rnic_park(qp);
		else
			rnic_runnable(qp);
		return;
	}
	/* Seven stands for ever (IBTA 9.9.2.1.1). */
	if (qp->attr.rnr_retry != 7 && req->rnr_retries++ >= qp->attr.rnr_retry) {
		rnic_fail_request(qp, req->next, IBV_WC_RNR_RETRY_EXC_ERR);
		return;
	}
	req->waiting = true;
	rnic_event_arm(fabric, &req->wait_event, fabric->time + rnr_times[code & 31] * 10000ull);
}

void rnic_wait_fired(struct rnic_fabric *fabric, struct rnic_event *event)
{
	struct rnic_qp *qp = rnic_of(event, struct rnic_qp, req.wait_event);

	(void)fabric;
	qp->req.waiting = false;
	rnic_runnable(qp);
}

void rnic_await(struct rnic_qp *qp)
{
	struct rnic_requester *req = &qp->req;
	struct rnic_device *device = qp->device;
	uint64_t from = device->fabric->time;

	if (!qp->attr.timeout || req->acked == req->psn)
		return;
	/* What has not left the host yet cannot be answered. */
	if (device->wire_free > from)
		from = device->wire_free;
	req->deadline = from + (4096ull << qp->attr.timeout);
	if (!req->retry_event.place)
		rnic_event_arm(device->fabric, &req->retry_event, req->deadline);
}

void rnic_retry_fired(struct rnic_fabric *fabric, struct rnic_event *event)
{
	struct rnic_qp *qp = rnic_of(event, struct rnic_qp, req.retry_event);
	struct rnic_requester *req = &qp->req;

	if (req->acked == req->psn || req->waiting)
		return;
	/* There was progress since it was armed. */
	if (fabric->time < req->deadline) {
		rnic_event_arm(fabric, event, req->deadline);
		return;
	}
	/* A device that was kept from running has not been listening, and the answer may be waiting in here. */
	if (fabric->time - req->deadline > (4096ull << qp->attr.timeout) / 4) {
		rnic_await(qp);
		return;
	}
	/* Where peers are waited for, an answer that is late is one that a busy machine has not come to. */
	bool counts = !qp->device->settings[RNIC_SET_WAIT_FOR_PEER];
	if (counts && req->retries++ >= qp->attr.retry_cnt) {
		uint32_t counter = rnic_sent_find(qp, req->acked);

		if (counter != req->started)
			rnic_fail_request(qp, counter, IBV_WC_RETRY_EXC_ERR);
		return;
	}
	rnic_go_back(qp, req->acked);
}
