/* The hardware: executes send queues, fills completion queues, raises events. */
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake.h"

pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work_cond = PTHREAD_COND_INITIALIZER;
static uint64_t overflows, errors, executed;
static int drop_nth, repeat_nth, hardware_runs;

void fake_drop_completion(int nth) { drop_nth = nth; }
void fake_repeat_send(int nth) { repeat_nth = nth; }

uint64_t fake_count(const char *what)
{
	uint64_t count = 0;

	pthread_mutex_lock(&fake_lock);
	if (!strcmp(what, "overflows"))
		count = overflows;
	else if (!strcmp(what, "errors"))
		count = errors;
	else if (!strcmp(what, "executed"))
		count = executed;
	else if (!strcmp(what, "qps"))
		for (struct fake_qp *qp = fake_qps; qp; qp = qp->next)
			count++;
	else if (!strcmp(what, "mrs"))
		for (struct fake_mr *mr = fake_mrs; mr; mr = mr->next)
			count++;
	pthread_mutex_unlock(&fake_lock);
	return count;
}

void fake_complete(struct ibv_cq *ibv, const struct ibv_wc *wc, int solicited)
{
	struct fake_cq *cq = (struct fake_cq *)ibv;

	if (wc->status != IBV_WC_SUCCESS)
		errors++;
	if (drop_nth && --drop_nth == 0)
		return;
	if (cq->tail - cq->head == (uint32_t)ibv->cqe) {
		overflows++;
		return;
	}
	cq->ring[cq->tail++ % cq->size] = *wc;
	if (cq->armed && ibv->channel && (cq->armed == 2 || solicited || wc->status != IBV_WC_SUCCESS)) {
		uint64_t cookie = (uintptr_t)ibv;
		struct fake_channel *channel = (struct fake_channel *)ibv->channel;

		cq->armed = 0;
		if (write(channel->writer, &cookie, sizeof(cookie)) != sizeof(cookie))
			overflows++;
	}
}

static struct fake_qp *remote_of(struct fake_qp *qp)
{
	for (int i = 0; i < 2; i++) {
		struct fake_device *device = &fake_devices[i];

		if (memcmp(&qp->attr.ah_attr.grh.dgid, &device->gids[1], sizeof(device->gids[1])))
			continue;
		struct fake_qp *other = fake_find_qp(device, qp->attr.dest_qp_num);
		/* The other end must have been told of this one, with the same starting number. */
		if (other && other->ibv.state >= IBV_QPS_RTR && other->ibv.state <= IBV_QPS_RTS &&
		    other->attr.dest_qp_num == qp->ibv.qp_num && other->attr.rq_psn == qp->attr.sq_psn)
			return other;
	}
	return NULL;
}

static void *translate(struct fake_qp *qp, int remote, uint32_t key, uint64_t addr, size_t length, unsigned int need)
{
	/* An rkey is the lkey's successor. */
	struct fake_mr *mr = fake_find_mr(fake_context(qp->ibv.context)->device, remote ? key - 1 : key);

	if (!mr || mr->ibv.pd != qp->ibv.pd || addr < mr->iova || addr + length > mr->iova + mr->ibv.length ||
	    (mr->access & need) != need)
		return NULL;
	return (char *)mr->ibv.addr + (addr - mr->iova);
}

/* Gathers or scatters; -1 on a bad key. */
static int copy(struct fake_qp *qp, struct ibv_sge *sges, int count, unsigned char *flat, size_t length, int scatter)
{
	for (int i = 0; i < count && length; i++) {
		size_t part = sges[i].length < length ? sges[i].length : length;
		void *memory = translate(qp, 0, sges[i].lkey, sges[i].addr, part,
					 scatter ? IBV_ACCESS_LOCAL_WRITE : 0);

		if (!memory)
			return -1;
		if (scatter)
			memcpy(memory, flat, part);
		else
			memcpy(flat, memory, part);
		flat += part;
		length -= part;
	}
	return length && scatter ? -1 : 0;
}

enum outcome { WAIT, EXECUTED, FAILED };

static enum outcome receive(struct fake_qp *to, struct fake_wqe *wqe, unsigned char *data, size_t length, int write)
{
	struct fake_recv *recv = &to->rq[to->rq_head % to->rq_size];
	int imm = wqe->wr.opcode == IBV_WR_SEND_WITH_IMM || write;
	struct ibv_wc wc = { .wr_id = recv->wr_id,
			     .status = IBV_WC_SUCCESS,
			     .opcode = write ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV,
			     .byte_len = (uint32_t)length,
			     .qp_num = to->ibv.qp_num,
			     .src_qp = to->attr.dest_qp_num,
			     .wc_flags = imm ? IBV_WC_WITH_IMM : 0 };

	if (imm)
		wc.imm_data = wqe->wr.imm_data;
	if (!write && copy(to, recv->sges, recv->num_sge, data, length, 1))
		wc.status = IBV_WC_LOC_PROT_ERR;
	to->rq_head++;
	fake_complete(to->ibv.recv_cq, &wc, wqe->wr.send_flags & IBV_SEND_SOLICITED);
	return wc.status == IBV_WC_SUCCESS ? EXECUTED : FAILED;
}

static enum ibv_wc_opcode wc_opcode(enum ibv_wr_opcode opcode)
{
	switch (opcode) {
	case IBV_WR_RDMA_WRITE:
	case IBV_WR_RDMA_WRITE_WITH_IMM:
		return IBV_WC_RDMA_WRITE;
	case IBV_WR_RDMA_READ:
		return IBV_WC_RDMA_READ;
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		return IBV_WC_FETCH_ADD;
	case IBV_WR_ATOMIC_CMP_AND_SWP:
		return IBV_WC_COMP_SWAP;
	default:
		return IBV_WC_SEND;
	}
}

static enum outcome execute(struct fake_qp *qp, struct fake_wqe *wqe, struct fake_qp *to, enum ibv_wc_status *status)
{
	static unsigned char data[1 << 16];
	struct ibv_send_wr *wr = &wqe->wr;
	size_t length = wqe->inlined;
	void *memory;

	if (wr->send_flags & IBV_SEND_INLINE) {
		memcpy(data, wqe->data, length);
	} else {
		length = 0;
		for (int i = 0; i < wr->num_sge; i++)
			length += wqe->sges[i].length;
		if (length > sizeof(data)) {
			*status = IBV_WC_LOC_LEN_ERR;
			return FAILED;
		}
	}
	switch (wr->opcode) {
	case IBV_WR_SEND:
	case IBV_WR_SEND_WITH_IMM:
	case IBV_WR_RDMA_WRITE_WITH_IMM:
		if (to->rq_head == to->rq_tail)
			return WAIT;
		break;
	default:
		break;
	}
	*status = IBV_WC_LOC_PROT_ERR;
	if (wr->opcode != IBV_WR_RDMA_READ && wr->opcode != IBV_WR_ATOMIC_FETCH_AND_ADD &&
	    !(wr->send_flags & IBV_SEND_INLINE) && copy(qp, wqe->sges, wr->num_sge, data, length, 0))
		return FAILED;
	*status = IBV_WC_REM_ACCESS_ERR;
	switch (wr->opcode) {
	case IBV_WR_SEND:
	case IBV_WR_SEND_WITH_IMM:
		return receive(to, wqe, data, length, 0);
	case IBV_WR_RDMA_WRITE:
	case IBV_WR_RDMA_WRITE_WITH_IMM:
		if (!(to->attr.qp_access_flags & IBV_ACCESS_REMOTE_WRITE))
			return FAILED;
		if (length) {
			memory = translate(to, 1, wr->wr.rdma.rkey, wr->wr.rdma.remote_addr, length,
					   IBV_ACCESS_REMOTE_WRITE);
			if (!memory)
				return FAILED;
			memcpy(memory, data, length);
		}
		return wr->opcode == IBV_WR_RDMA_WRITE ? EXECUTED : receive(to, wqe, data, length, 1);
	case IBV_WR_RDMA_READ:
		memory = translate(to, 1, wr->wr.rdma.rkey, wr->wr.rdma.remote_addr, length, IBV_ACCESS_REMOTE_READ);
		if (!memory || copy(qp, wqe->sges, wr->num_sge, memory, length, 1))
			return FAILED;
		return EXECUTED;
	case IBV_WR_ATOMIC_FETCH_AND_ADD: {
		uint64_t before;

		memory = translate(to, 1, wr->wr.atomic.rkey, wr->wr.atomic.remote_addr, 8,
				   IBV_ACCESS_REMOTE_ATOMIC);
		if (!memory)
			return FAILED;
		before = *(uint64_t *)memory;
		*(uint64_t *)memory = before + wr->wr.atomic.compare_add;
		return copy(qp, wqe->sges, wr->num_sge, (unsigned char *)&before, 8, 1) ? FAILED : EXECUTED;
	}
	default:
		*status = IBV_WC_LOC_QP_OP_ERR;
		return FAILED;
	}
}

/* One request of a QP; 0: it has to wait. */
static int step(struct fake_qp *qp)
{
	struct fake_wqe *wqe = &qp->sq[qp->sq_head % qp->sq_size];
	enum ibv_wc_status status = IBV_WC_SUCCESS;
	struct fake_qp *to = remote_of(qp);

	if (!to)
		return 0;
	enum outcome outcome = execute(qp, wqe, to, &status);
	if (outcome == WAIT)
		return 0;
	if (outcome == EXECUTED)
		status = IBV_WC_SUCCESS;
	/* Of what shows: a write of the same bytes would not. */
	if (repeat_nth && wqe->wr.opcode != IBV_WR_RDMA_WRITE && wqe->wr.opcode != IBV_WR_RDMA_READ && --repeat_nth == 0)
		execute(qp, wqe, to, &status);
	executed++;
	qp->sq_head++;
	if (outcome == FAILED || wqe->wr.send_flags & IBV_SEND_SIGNALED || qp->init.sq_sig_all) {
		struct ibv_wc wc = { .wr_id = wqe->wr.wr_id,
				     .status = status,
				     .opcode = wc_opcode(wqe->wr.opcode),
				     .qp_num = qp->ibv.qp_num };

		fake_complete(qp->ibv.send_cq, &wc, 0);
	}
	if (outcome == FAILED)
		qp->ibv.state = IBV_QPS_ERR;
	return 1;
}

/* QPs with something in their send queues. */
static struct fake_qp *work;

static void give_work(struct fake_qp *qp)
{
	if (qp->has_work || qp->sq_head == qp->sq_tail)
		return;
	qp->has_work = 1;
	qp->next_work = work;
	work = qp;
}

void fake_forget_work(struct fake_qp *qp)
{
	if (!qp->has_work)
		return;
	for (struct fake_qp **link = &work; *link; link = &(*link)->next_work)
		if (*link == qp) {
			*link = qp->next_work;
			qp->has_work = 0;
			return;
		}
}

static int run_all(int at_most)
{
	int worked = 0;

	for (struct fake_qp **link = &work; *link;) {
		struct fake_qp *qp = *link;

		for (int i = 0; i < at_most && qp->ibv.state == IBV_QPS_RTS && qp->sq_head != qp->sq_tail; i++) {
			if (!step(qp))
				break;
			worked = 1;
		}
		if (qp->sq_head == qp->sq_tail) {
			*link = qp->next_work;
			qp->has_work = 0;
		} else {
			link = &qp->next_work;
		}
	}
	return worked;
}

static void *hardware(void *unused)
{
	unsigned seed = 1;

	(void)unused;
	pthread_mutex_lock(&fake_lock);
	for (;;) {
		/* Small uneven portions, so that many states in between are seen. */
		if (!run_all(1 + rand_r(&seed) % 4))
			pthread_cond_wait(&work_cond, &fake_lock);
		pthread_mutex_unlock(&fake_lock);
		sched_yield();
		pthread_mutex_lock(&fake_lock);
	}
	return NULL;
}

void fake_start_hardware(void)
{
	pthread_t thread;

	if (!hardware_runs && getenv("FAKE_ASYNC"))
		hardware_runs = !pthread_create(&thread, NULL, hardware, NULL);
}

void fake_work(void)
{
	if (hardware_runs)
		pthread_cond_signal(&work_cond);
	else
		while (run_all(1 << 30))
			;
}

int fake_post_send(struct ibv_qp *ibv, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct fake_qp *qp = (struct fake_qp *)ibv;
	int error = 0;

	fake_check(ibv->context, "post_send");
	pthread_mutex_lock(&fake_lock);
	for (; wr; wr = wr->next) {
		struct fake_wqe *wqe = &qp->sq[qp->sq_tail % qp->sq_size];

		if (wr->num_sge > (int)qp->init.cap.max_send_sge || ibv->state < IBV_QPS_RTS)
			error = EINVAL;
		else if (qp->sq_tail - qp->sq_head == qp->init.cap.max_send_wr)
			error = ENOMEM;
		if (error)
			break;
		wqe->wr = *wr;
		wqe->inlined = 0;
		for (int i = 0; i < wr->num_sge; i++) {
			wqe->sges[i] = wr->sg_list[i];
			if (!(wr->send_flags & IBV_SEND_INLINE))
				continue;
			if (wqe->inlined + wr->sg_list[i].length > sizeof(wqe->data)) {
				error = EINVAL;
				break;
			}
			memcpy(wqe->data + wqe->inlined, (void *)(uintptr_t)wr->sg_list[i].addr, wr->sg_list[i].length);
			wqe->inlined += wr->sg_list[i].length;
		}
		if (error)
			break;
		qp->sq_tail++;
	}
	if (error)
		*bad = wr;
	give_work(qp);
	fake_work();
	pthread_mutex_unlock(&fake_lock);
	return error;
}

int fake_post_recv(struct ibv_qp *ibv, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct fake_qp *qp = (struct fake_qp *)ibv;
	int error = 0;

	fake_check(ibv->context, "post_recv");
	pthread_mutex_lock(&fake_lock);
	for (; wr; wr = wr->next) {
		struct fake_recv *recv = &qp->rq[qp->rq_tail % qp->rq_size];

		/* A device does not wait for the end of a list: what it has taken from the front makes room. */
		if (qp->rq_tail - qp->rq_head == qp->init.cap.max_recv_wr)
			fake_work();
		if (wr->num_sge > (int)qp->init.cap.max_recv_sge || ibv->state == IBV_QPS_RESET)
			error = EINVAL;
		else if (qp->rq_tail - qp->rq_head == qp->init.cap.max_recv_wr)
			error = ENOMEM;
		if (error)
			break;
		recv->wr_id = wr->wr_id;
		recv->num_sge = wr->num_sge;
		if (wr->num_sge)
			memcpy(recv->sges, wr->sg_list, (size_t)wr->num_sge * sizeof(recv->sges[0]));
		qp->rq_tail++;
	}
	if (error)
		*bad = wr;
	fake_work();
	pthread_mutex_unlock(&fake_lock);
	return error;
}

int fake_poll_cq(struct ibv_cq *ibv, int entries, struct ibv_wc *wc)
{
	struct fake_cq *cq = (struct fake_cq *)ibv;
	int count = 0;

	fake_check(ibv->context, "poll_cq");
	pthread_mutex_lock(&fake_lock);
	while (count < entries && cq->head != cq->tail)
		wc[count++] = cq->ring[cq->head++ % cq->size];
	pthread_mutex_unlock(&fake_lock);
	return count;
}

int fake_req_notify_cq(struct ibv_cq *ibv, int solicited_only)
{
	fake_check(ibv->context, "req_notify_cq");
	pthread_mutex_lock(&fake_lock);
	((struct fake_cq *)ibv)->armed = solicited_only ? 1 : 2;
	pthread_mutex_unlock(&fake_lock);
	return 0;
}
