/* The verbs that make and end objects. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fake.h"

struct fake_context *fake_contexts;
struct fake_channel *fake_channels;

#define GID(last) { .raw = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last } }
struct fake_device fake_devices[2] = {
	{ .ibv = { .node_type = IBV_NODE_CA, .transport_type = IBV_TRANSPORT_IB, .name = "fake0", .dev_name = "uverbs0" },
	  .first_qpn = 17, .next_qpn = 17, .next_key = 0x1000,
	  .gids = { { .raw = { 0xfe, 0x80, [15] = 1 } }, GID(1) } },
	{ .ibv = { .node_type = IBV_NODE_CA, .transport_type = IBV_TRANSPORT_IB, .name = "fake1", .dev_name = "uverbs1" },
	  .first_qpn = 5000, .next_qpn = 5000, .next_key = 0x900000,
	  .gids = { { .raw = { 0xfe, 0x80, [15] = 2 } }, GID(2) } },
};

static char fail_function[64];
static int fail_nth, fail_error;

void fake_fail(const char *function, int nth, int error)
{
	pthread_mutex_lock(&fake_lock);
	snprintf(fail_function, sizeof(fail_function), "%s", function);
	fail_nth = nth;
	fail_error = error;
	pthread_mutex_unlock(&fake_lock);
}

int fake_fault(const char *function)
{
	int hit = 0;

	pthread_mutex_lock(&fake_lock);
	if (fail_nth && !strcmp(fail_function, function) && --fail_nth == 0)
		hit = fail_error;
	pthread_mutex_unlock(&fake_lock);
	if (hit)
		errno = hit;
	return hit;
}

void fake_set_numbers(int device, uint32_t qpn, uint32_t key)
{
	pthread_mutex_lock(&fake_lock);
	if (qpn)
		fake_devices[device].next_qpn = qpn;
	if (key)
		fake_devices[device].next_key = key;
	pthread_mutex_unlock(&fake_lock);
}

void fake_check(struct ibv_context *context, const char *function)
{
	if (!fake_context(context)->detached)
		return;
	fprintf(stderr, "fakeverbs: %s on an object that was left behind by a restore\n", function);
	abort();
}

struct ibv_device **ibv_get_device_list(int *count)
{
	struct ibv_device **list = fake_fault("get_device_list") ? NULL : calloc(3, sizeof(*list));

	if (list) {
		list[0] = &fake_devices[0].ibv;
		list[1] = &fake_devices[1].ibv;
	}
	if (count)
		*count = list ? 2 : 0;
	return list;
}

void ibv_free_device_list(struct ibv_device **list) { free(list); }
const char *ibv_get_device_name(struct ibv_device *device) { return device->name; }
__be64 ibv_get_device_guid(struct ibv_device *device) { return (__be64)(device->name[4] - '0' + 1) << 56; }
int ibv_get_device_index(struct ibv_device *device) { return device->name[4] - '0'; }

/* Over the same table as a real one: see whether our library uses what it is given. */
static int query_port_ex(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr, size_t size)
{
	fake_check(context, "query_port");
	if (port != 1)
		return EINVAL;
	memset(attr, 0, size);
	attr->state = IBV_PORT_ACTIVE;
	attr->max_mtu = attr->active_mtu = IBV_MTU_1024;
	attr->gid_tbl_len = 2;
	attr->pkey_tbl_len = 1;
	attr->link_layer = IBV_LINK_LAYER_ETHERNET;
	return 0;
}

int ibv_query_port(struct ibv_context *context, uint8_t port, struct _compat_ibv_port_attr *attr)
{
	return query_port_ex(context, port, (struct ibv_port_attr *)attr, offsetof(struct ibv_port_attr, port_cap_flags2));
}

static int post_srq_recv(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	(void)srq;
	*bad = wr;
	return ENOSYS;
}

static struct ibv_mw *alloc_mw(struct ibv_pd *pd, enum ibv_mw_type type)
{
	struct ibv_mw *mw = calloc(1, sizeof(*mw));

	mw->context = pd->context;
	mw->pd = pd;
	mw->type = type;
	return mw;
}

static int dealloc_mw(struct ibv_mw *mw)
{
	fake_check(mw->context, "dealloc_mw");
	free(mw);
	return 0;
}

/* A real driver looks behind the public part of what it is given. */
static int bind_mw(struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind)
{
	struct fake_qp *own = (struct fake_qp *)qp;

	if (!own->sq || mw->pd != qp->pd || (bind->bind_info.mr && bind->bind_info.mr->pd != mw->pd))
		abort();
	return 0;
}

static struct ibv_pd *alloc_parent_domain(struct ibv_context *context, struct ibv_parent_domain_init_attr *attr)
{
	struct fake_pd *pd = calloc(1, sizeof(*pd));

	if (attr->pd->context != context)
		abort();
	pd->ibv.context = context;
	return &pd->ibv;
}

static struct ibv_cq_ex *create_cq_ex(struct ibv_context *context, struct ibv_cq_init_attr_ex *attr)
{
	return (struct ibv_cq_ex *)ibv_create_cq(context, (int)attr->cqe, attr->cq_context, attr->channel, 0);
}

struct ibv_context *ibv_open_device(struct ibv_device *device)
{
	struct fake_context *context = fake_fault("open_device") ? NULL : calloc(1, sizeof(*context));
	int ends[2];

	if (!context)
		return NULL;
	if (pipe2(ends, O_CLOEXEC)) {
		free(context);
		return NULL;
	}
	context->device = (struct fake_device *)device;
	context->async_writer = ends[1];
	context->verbs.sz = sizeof(context->verbs);
	context->verbs.query_port = query_port_ex;
	context->verbs.alloc_parent_domain = alloc_parent_domain;
	context->verbs.create_cq_ex = create_cq_ex;
	context->verbs.create_qp_ex = fake_create_qp_ex;
	context->verbs.context.abi_compat = __VERBS_ABI_IS_EXTENDED;
	context->verbs.context.device = device;
	context->verbs.context.cmd_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	context->verbs.context.async_fd = ends[0];
	context->verbs.context.num_comp_vectors = 2;
	context->verbs.context.ops.poll_cq = fake_poll_cq;
	context->verbs.context.ops.req_notify_cq = fake_req_notify_cq;
	context->verbs.context.ops.post_send = fake_post_send;
	context->verbs.context.ops.post_recv = fake_post_recv;
	context->verbs.context.ops.post_srq_recv = post_srq_recv;
	context->verbs.context.ops.alloc_mw = alloc_mw;
	context->verbs.context.ops.dealloc_mw = dealloc_mw;
	context->verbs.context.ops.bind_mw = bind_mw;
	pthread_mutex_lock(&fake_lock);
	context->next = fake_contexts;
	fake_contexts = context;
	fake_start_hardware();
	pthread_mutex_unlock(&fake_lock);
	return &context->verbs.context;
}

int ibv_close_device(struct ibv_context *ibv)
{
	struct fake_context *context = fake_context(ibv);

	fake_check(ibv, "close_device");
	pthread_mutex_lock(&fake_lock);
	for (struct fake_context **link = &fake_contexts; *link; link = &(*link)->next)
		if (*link == context) {
			*link = context->next;
			break;
		}
	pthread_mutex_unlock(&fake_lock);
	close(ibv->cmd_fd);
	close(ibv->async_fd);
	close(context->async_writer);
	free(context);
	return 0;
}

struct ibv_context *ibv_import_device(int fd)
{
	int count = 0;
	struct ibv_device **list = ibv_get_device_list(&count);
	struct ibv_context *context = NULL;

	(void)fd;
	/* As libibverbs does: by its public function, then behind the public part. */
	if (list && count && ((struct fake_device *)list[0])->first_qpn == 17)
		context = ibv_open_device(list[0]);
	if (list)
		ibv_free_device_list(list);
	return context;
}

int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *attr)
{
	fake_check(context, "query_device");
	memset(attr, 0, sizeof(*attr));
	attr->max_qp = 1 << 20;
	attr->max_qp_wr = 1 << 15;
	attr->max_sge = 8;
	attr->max_cqe = 1 << 20;
	attr->phys_port_cnt = 1;
	return 0;
}

int ibv_query_gid(struct ibv_context *context, uint8_t port, int index, union ibv_gid *gid)
{
	fake_check(context, "query_gid");
	if (port != 1 || index < 0 || index > 1)
		return -1;
	*gid = fake_context(context)->device->gids[index];
	return 0;
}

int ibv_query_pkey(struct ibv_context *context, uint8_t port, int index, __be16 *pkey)
{
	(void)context, (void)port, (void)index;
	*pkey = 0xffff;
	return 0;
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
	fake_check(context, "alloc_pd");
	struct fake_pd *pd = fake_fault("alloc_pd") ? NULL : calloc(1, sizeof(*pd));

	if (pd)
		pd->ibv.context = context;
	return pd ? &pd->ibv : NULL;
}

int ibv_dealloc_pd(struct ibv_pd *ibv)
{
	struct fake_pd *pd = (struct fake_pd *)ibv;

	fake_check(ibv->context, "dealloc_pd");
	if (pd->users)
		return EBUSY;
	free(pd);
	return 0;
}

/* A number is handed out again only when nothing has it. */
static uint32_t free_qpn(struct fake_device *device)
{
	while (fake_find_qp(device, device->next_qpn))
		device->next_qpn++;
	return device->next_qpn++;
}

static uint32_t free_key(struct fake_device *device)
{
	do
		device->next_key += 0x11;
	while (fake_find_mr(device, device->next_key));
	return device->next_key;
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, unsigned int access)
{
	fake_check(pd->context, "reg_mr");
	struct fake_mr *mr = fake_fault("reg_mr") ? NULL : calloc(1, sizeof(*mr));

	if (!mr)
		return NULL;
	pthread_mutex_lock(&fake_lock);
	struct fake_device *device = fake_context(pd->context)->device;
	uint32_t key = free_key(device);
	mr->ibv = (struct ibv_mr){ .context = pd->context, .pd = pd, .addr = addr, .length = length,
				   .lkey = key, .rkey = key + 1 };
	mr->iova = iova;
	mr->access = access;
	fake_add_mr(mr);
	((struct fake_pd *)pd)->users++;
	pthread_mutex_unlock(&fake_lock);
	return &mr->ibv;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
	return ibv_reg_mr_iova2(pd, addr, length, (uintptr_t)addr, (unsigned int)access);
}

struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, int access)
{
	return ibv_reg_mr_iova2(pd, addr, length, iova, (unsigned int)access);
}

int ibv_dereg_mr(struct ibv_mr *ibv)
{
	fake_check(ibv->context, "dereg_mr");
	pthread_mutex_lock(&fake_lock);
	fake_remove_mr((struct fake_mr *)ibv);
	((struct fake_pd *)ibv->pd)->users--;
	pthread_mutex_unlock(&fake_lock);
	free(ibv);
	return 0;
}

int ibv_rereg_mr(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *addr, size_t length, int access)
{
	(void)mr, (void)flags, (void)pd, (void)addr, (void)length, (void)access;
	errno = EOPNOTSUPP;
	return IBV_REREG_MR_ERR_CMD;
}

int ibv_dofork_range(void *addr, size_t length) { (void)addr, (void)length; return 0; }
int ibv_dontfork_range(void *addr, size_t length) { (void)addr, (void)length; return 0; }
int ibv_fork_init(void) { return 0; }

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
	fake_check(context, "create_comp_channel");
	struct fake_channel *channel = fake_fault("create_comp_channel") ? NULL : calloc(1, sizeof(*channel));
	int ends[2];

	if (!channel)
		return NULL;
	if (pipe2(ends, O_CLOEXEC)) {
		free(channel);
		return NULL;
	}
	channel->ibv.context = context;
	channel->ibv.fd = ends[0];
	channel->writer = ends[1];
	pthread_mutex_lock(&fake_lock);
	channel->next = fake_channels;
	fake_channels = channel;
	pthread_mutex_unlock(&fake_lock);
	return &channel->ibv;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *ibv)
{
	struct fake_channel *channel = (struct fake_channel *)ibv;

	fake_check(ibv->context, "destroy_comp_channel");
	if (ibv->refcnt)
		return EBUSY;
	pthread_mutex_lock(&fake_lock);
	for (struct fake_channel **link = &fake_channels; *link; link = &(*link)->next)
		if (*link == channel) {
			*link = channel->next;
			break;
		}
	pthread_mutex_unlock(&fake_lock);
	close(ibv->fd);
	close(channel->writer);
	free(channel);
	return 0;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *context, int entries, void *cq_context,
			     struct ibv_comp_channel *channel, int vector)
{
	fake_check(context, "create_cq");
	struct fake_cq *cq = fake_fault("create_cq") ? NULL : calloc(1, sizeof(*cq));

	(void)vector;
	if (!cq)
		return NULL;
	if (channel && channel->context != context)
		abort();
	cq->size = (uint32_t)entries + 1;
	cq->ring = calloc(cq->size, sizeof(*cq->ring));
	cq->ibv.context = context;
	cq->ibv.channel = channel;
	cq->ibv.cq_context = cq_context;
	cq->ibv.cqe = entries;
	pthread_mutex_init(&cq->ibv.mutex, NULL);
	pthread_cond_init(&cq->ibv.cond, NULL);
	pthread_mutex_lock(&fake_lock);
	if (channel)
		channel->refcnt++;
	pthread_mutex_unlock(&fake_lock);
	return &cq->ibv;
}

int ibv_resize_cq(struct ibv_cq *cq, int entries)
{
	(void)cq, (void)entries;
	return ENOSYS;
}

int ibv_destroy_cq(struct ibv_cq *ibv)
{
	struct fake_cq *cq = (struct fake_cq *)ibv;

	fake_check(ibv->context, "destroy_cq");
	if (cq->users)
		return EBUSY;
	pthread_mutex_lock(&ibv->mutex);
	while (ibv->comp_events_completed != cq->events)
		pthread_cond_wait(&ibv->cond, &ibv->mutex);
	pthread_mutex_unlock(&ibv->mutex);
	pthread_mutex_lock(&fake_lock);
	if (ibv->channel)
		ibv->channel->refcnt--;
	pthread_mutex_unlock(&fake_lock);
	free(cq->ring);
	free(cq);
	return 0;
}

int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cq_context)
{
	uint64_t cookie;

	fake_check(channel->context, "get_cq_event");
	if (read(channel->fd, &cookie, sizeof(cookie)) != sizeof(cookie))
		return -1;
	*cq = (struct ibv_cq *)(uintptr_t)cookie;
	*cq_context = (*cq)->cq_context;
	__atomic_add_fetch(&((struct fake_cq *)*cq)->events, 1, __ATOMIC_SEQ_CST);
	return 0;
}

void ibv_ack_cq_events(struct ibv_cq *cq, unsigned int count)
{
	fake_check(cq->context, "ack_cq_events");
	pthread_mutex_lock(&cq->mutex);
	cq->comp_events_completed += count;
	pthread_cond_signal(&cq->cond);
	pthread_mutex_unlock(&cq->mutex);
}

struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
	fake_check(pd->context, "create_qp");
	struct fake_qp *qp = fake_fault("create_qp") ? NULL : calloc(1, sizeof(*qp));

	if (!qp)
		return NULL;
	if (attr->send_cq->context != pd->context || attr->recv_cq->context != pd->context)
		abort();
	if (attr->cap.max_send_wr > 1 << 15) {
		free(qp);
		errno = EINVAL;
		return NULL;
	}
	attr->cap.max_inline_data = 64;
	qp->init = *attr;
	qp->sq_size = attr->cap.max_send_wr + 1;
	qp->rq_size = attr->cap.max_recv_wr + 1;
	qp->sq = calloc(qp->sq_size, sizeof(*qp->sq));
	qp->rq = calloc(qp->rq_size, sizeof(*qp->rq));
	pthread_mutex_lock(&fake_lock);
	struct fake_device *device = fake_context(pd->context)->device;
	qp->ibv = (struct ibv_qp){ .context = pd->context, .qp_context = attr->qp_context, .pd = pd,
				   .send_cq = attr->send_cq, .recv_cq = attr->recv_cq, .srq = attr->srq,
				   .qp_num = free_qpn(device), .qp_type = attr->qp_type };
	fake_add_qp(qp);
	((struct fake_pd *)pd)->users++;
	((struct fake_cq *)attr->send_cq)->users++;
	((struct fake_cq *)attr->recv_cq)->users++;
	pthread_mutex_unlock(&fake_lock);
	return &qp->ibv;
}

int ibv_modify_qp(struct ibv_qp *ibv, struct ibv_qp_attr *attr, int mask)
{
	struct fake_qp *qp = (struct fake_qp *)ibv;
	static const int needed[] = {
		[IBV_QPS_INIT] = IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS,
		[IBV_QPS_RTR] = IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER,
		[IBV_QPS_RTS] = IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
				IBV_QP_MAX_QP_RD_ATOMIC,
	};
	int error = fake_fault("modify_qp");

	fake_check(ibv->context, "modify_qp");
	if (error)
		return error;
	if (mask & IBV_QP_STATE && attr->qp_state >= IBV_QPS_INIT && attr->qp_state <= IBV_QPS_RTS &&
	    ibv->qp_type == IBV_QPT_RC && attr->qp_state != ibv->state &&
	    ((mask & needed[attr->qp_state]) != needed[attr->qp_state] || ibv->state + 1 != attr->qp_state))
		return EINVAL;
	pthread_mutex_lock(&fake_lock);
#define TAKE(bit, member)                                                                                  \
	if (mask & (bit))                                                                                  \
		qp->attr.member = attr->member;
	TAKE(IBV_QP_ACCESS_FLAGS, qp_access_flags)
	TAKE(IBV_QP_DEST_QPN, dest_qp_num)
	TAKE(IBV_QP_AV, ah_attr)
	TAKE(IBV_QP_RQ_PSN, rq_psn)
	TAKE(IBV_QP_SQ_PSN, sq_psn)
	TAKE(IBV_QP_PATH_MTU, path_mtu)
	TAKE(IBV_QP_PORT, port_num)
	if (mask & IBV_QP_STATE) {
		ibv->state = attr->qp_state;
		if (attr->qp_state == IBV_QPS_RESET)
			fake_forget_work(qp), qp->sq_head = qp->sq_tail = qp->rq_head = qp->rq_tail = 0;
	}
	fake_work();
	pthread_mutex_unlock(&fake_lock);
	return 0;
}

int ibv_query_qp(struct ibv_qp *ibv, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init)
{
	struct fake_qp *qp = (struct fake_qp *)ibv;

	fake_check(ibv->context, "query_qp");
	(void)mask;
	*attr = qp->attr;
	attr->qp_state = attr->cur_qp_state = ibv->state;
	attr->cap = qp->init.cap;
	*init = qp->init;
	return 0;
}

int ibv_destroy_qp(struct ibv_qp *ibv)
{
	struct fake_qp *qp = (struct fake_qp *)ibv;

	fake_check(ibv->context, "destroy_qp");
	pthread_mutex_lock(&fake_lock);
	fake_forget_work(qp);
	fake_remove_qp(qp);
	((struct fake_pd *)ibv->pd)->users--;
	((struct fake_cq *)ibv->send_cq)->users--;
	((struct fake_cq *)ibv->recv_cq)->users--;
	pthread_mutex_unlock(&fake_lock);
	free(qp->sq);
	free(qp->rq);
	free(qp->builder);
	free(qp);
	return 0;
}

struct async {
	uint64_t element;
	uint32_t type, reserved;
};

int fake_raise(uint32_t qpn, int type)
{
	int raised = 0;

	pthread_mutex_lock(&fake_lock);
	for (struct fake_qp *qp = fake_qps; qp; qp = qp->next) {
		struct async event = { type == IBV_EVENT_CQ_ERR ? (uintptr_t)qp->ibv.send_cq : (uintptr_t)&qp->ibv,
				       (uint32_t)type, 0 };

		if (qp->ibv.qp_num != qpn)
			continue;
		if (write(fake_context(qp->ibv.context)->async_writer, &event, sizeof(event)) != sizeof(event))
			abort();
		raised = 1;
	}
	pthread_mutex_unlock(&fake_lock);
	return raised;
}

int ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *event)
{
	struct async read_event;

	fake_check(context, "get_async_event");
	if (read(context->async_fd, &read_event, sizeof(read_event)) != sizeof(read_event))
		return -1;
	event->event_type = (enum ibv_event_type)read_event.type;
	event->element.qp = (struct ibv_qp *)(uintptr_t)read_event.element;
	return 0;
}

void ibv_ack_async_event(struct ibv_async_event *event)
{
	if (event->event_type == IBV_EVENT_CQ_ERR) {
		fake_check(event->element.cq->context, "ack_async_event");
		__atomic_add_fetch(&event->element.cq->async_events_completed, 1, __ATOMIC_SEQ_CST);
		return;
	}
	fake_check(event->element.qp->context, "ack_async_event");
	__atomic_add_fetch(&event->element.qp->events_completed, 1, __ATOMIC_SEQ_CST);
}

struct ibv_ah *ibv_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr)
{
	struct ibv_ah *ah = calloc(1, sizeof(*ah));

	(void)attr;
	ah->context = pd->context;
	ah->pd = pd;
	return ah;
}

int ibv_destroy_ah(struct ibv_ah *ah) { free(ah); return 0; }

struct ibv_srq *ibv_create_srq(struct ibv_pd *pd, struct ibv_srq_init_attr *attr)
{
	struct ibv_srq *srq = calloc(1, sizeof(*srq));

	srq->context = pd->context;
	srq->pd = pd;
	srq->srq_context = attr->srq_context;
	return srq;
}

int ibv_destroy_srq(struct ibv_srq *srq) { free(srq); return 0; }
const char *ibv_wc_status_str(enum ibv_wc_status status) { return status ? "error" : "success"; }

/* The kernel objects stay behind on the other host; numbers of descriptors are kept by placeholders. */
void fake_restore(void)
{
	int placeholder = eventfd(0, EFD_CLOEXEC);

	pthread_mutex_lock(&fake_lock);
	for (struct fake_context *context = fake_contexts; context; context = context->next) {
		if (context->detached)
			continue;
		context->detached = 1;
		dup2(placeholder, context->verbs.context.cmd_fd);
		dup2(placeholder, context->verbs.context.async_fd);
	}
	for (struct fake_channel *channel = fake_channels; channel; channel = channel->next)
		if (fake_context(channel->ibv.context)->detached)
			dup2(placeholder, channel->ibv.fd);
	for (struct fake_qp *qp = fake_qps, *next; qp; qp = next) {
		next = qp->next;
		if (fake_context(qp->ibv.context)->detached) {
			fake_forget_work(qp);
			fake_remove_qp(qp);
		}
	}
	for (struct fake_mr *mr = fake_mrs, *next; mr; mr = next) {
		next = mr->next;
		if (fake_context(mr->ibv.context)->detached)
			fake_remove_mr(mr);
	}
	/* A second restore must not replace what has its number by then. */
	for (struct fake_channel **link = &fake_channels; *link;)
		if (fake_context((*link)->ibv.context)->detached)
			*link = (*link)->next;
		else
			link = &(*link)->next;
	for (struct fake_context **link = &fake_contexts; *link;)
		if ((*link)->detached)
			*link = (*link)->next;
		else
			link = &(*link)->next;
	pthread_mutex_unlock(&fake_lock);
	close(placeholder);
}
