#define _GNU_SOURCE
#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "../built.h"
#include "content.h"
#include "stream.h"

#define HUGE_PAGE (2ul << 20)

static void open_named(struct device *device, struct verdict *verdict)
{
	const char *wanted = device->options->device;
	struct ibv_device **list = ibv_get_device_list(NULL), **found = list;

	while (list && *found && wanted && strcmp(ibv_get_device_name(*found), wanted))
		found++;
	if (!list || !*found)
		fail(verdict, "there is no RDMA device%s%s", wanted ? " " : "", wanted ? wanted : "");
	else if (!(device->context = ibv_open_device(*found)))
		fail(verdict, "opening %s: %s", ibv_get_device_name(*found), strerror(errno));
	if (list)
		ibv_free_device_list(list);
}

static void look_up_address(struct device *device, struct verdict *verdict)
{
	const struct options *options = device->options;
	struct ibv_device_attr limits;
	struct ibv_port_attr port;
	int reads;

	if (ibv_query_device(device->context, &limits) || ibv_query_port(device->context, options->port, &port) ||
	    ibv_query_gid(device->context, options->port, options->gid_index, &device->here.gid)) {
		fail(verdict, "looking up port %u, GID %d: %s", options->port, options->gid_index, strerror(errno));
		return;
	}
	if (port.state != IBV_PORT_ACTIVE)
		fail(verdict, "port %u is not active", options->port);
	reads = limits.max_qp_rd_atom < limits.max_qp_init_rd_atom ? limits.max_qp_rd_atom : limits.max_qp_init_rd_atom;
	device->here.reads = (uint8_t)(reads > 16 ? 16 : reads > 0 ? reads : 1);
	device->here.lid = port.lid;
	device->here.mtu = port.active_mtu;
}

static uint8_t *get_memory(enum memory kind, size_t size)
{
	int flags = kind == MEMORY_SHARED ? MAP_SHARED : MAP_PRIVATE;
	size_t room = kind == MEMORY_HUGE ? size + HUGE_PAGE : size;
	uint8_t *memory = mmap(NULL, room, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	if (kind == MEMORY_HUGE)
		memory = (uint8_t *)(((uintptr_t)memory + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
	/* Without the kernel's support both are what they would be without the advice. */
	madvise(memory, size, kind == MEMORY_HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return memory;
}

static void make_region(struct region *region, struct device *device, size_t size, int access, struct verdict *verdict)
{
	/* Whole pages: nothing else lives on a page that the device writes. */
	size_t page = device->options->memory == MEMORY_HUGE ? HUGE_PAGE : 4096;

	region->size = (size + page - 1) / page * page;
	region->memory = get_memory(device->options->memory, region->size);
	if (!region->memory) {
		fail(verdict, "%zu bytes of memory: %s", region->size, strerror(errno));
		return;
	}
	blank(region->memory, region->size);
	if (device->options->memory == MEMORY_DEMAND)
		access |= IBV_ACCESS_ON_DEMAND;
	region->mr = ibv_reg_mr(device->pd, region->memory, region->size, access);
	if (!region->mr)
		fail(verdict, "registering %zu bytes: %s", region->size, strerror(errno));
}

static struct ibv_srq *create_shared(struct device *device, uint32_t receives)
{
	struct ibv_xrcd_init_attr domain = { .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = -1,
					     .oflags = O_CREAT };
	struct ibv_srq_init_attr shared = { .srq_context = device, .attr = { receives, 2, 0 } };
	struct ibv_srq_init_attr_ex named = { .srq_context = device, .attr = shared.attr, .srq_type = IBV_SRQT_XRC,
					      .pd = device->pd, .cq = device->recv_cq,
					      .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD |
							   IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ };

	if (!device->options->xrc)
		return ibv_create_srq(device->pd, &shared);
	named.xrcd = device->xrcd = ibv_open_xrcd(device->context, &domain);
	struct ibv_srq *srq = device->xrcd ? ibv_create_srq_ex(device->context, &named) : NULL;
	return srq && !ibv_get_srq_num(srq, &device->here.srqn) ? srq : NULL;
}

void device_open(struct device *device, const struct options *options, size_t exposed, struct verdict *verdict)
{
	int sends = (int)(options->qps * options->depth), receives = (int)(options->qps * receives_of(options));
	size_t size = options->size;

	*device = (struct device){ .options = options };
	open_named(device, verdict);
	if (verdict->failed)
		return;
	look_up_address(device, verdict);
	device->pd = ibv_alloc_pd(device->context);
	device->channel = ibv_create_comp_channel(device->context);
	if (!device->pd || !device->channel) {
		fail(verdict, "making a PD and a completion channel: %s", strerror(errno));
		return;
	}
	device->send_cq = ibv_create_cq(device->context, sends, &device->send_cq, device->channel, 0);
	device->recv_cq = ibv_create_cq(device->context, receives, &device->recv_cq, device->channel, 0);
	if (!device->send_cq || !device->recv_cq) {
		fail(verdict, "making CQs of %d and %d entries: %s", sends, receives, strerror(errno));
		return;
	}
	if (options->shared && !(device->srq = create_shared(device, (uint32_t)receives))) {
		fail(verdict, "making an SRQ of %d entries: %s", receives, strerror(errno));
		return;
	}
	make_region(&device->sent, device, (size_t)sends * size, IBV_ACCESS_LOCAL_WRITE, verdict);
	make_region(&device->received, device, (size_t)receives * size, IBV_ACCESS_LOCAL_WRITE, verdict);
	make_region(&device->exposed, device, exposed,
		    IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
			    IBV_ACCESS_REMOTE_ATOMIC,
		    verdict);
	if (verdict->failed)
		return;
	device->here.memory = (uintptr_t)device->exposed.memory;
	device->here.rkey = device->exposed.mr->rkey;
}

static void end_region(struct region *region, struct verdict *verdict)
{
	if (region->mr && ibv_dereg_mr(region->mr))
		fail(verdict, "ending an MR: %s", strerror(errno));
	if (region->memory)
		munmap(region->memory, region->size);
}

void device_close(struct device *device, struct verdict *verdict)
{
	if (device->srq && ibv_destroy_srq(device->srq))
		fail(verdict, "ending the SRQ: %s", strerror(errno));
	if (device->xrcd && ibv_close_xrcd(device->xrcd))
		fail(verdict, "closing the XRC domain: %s", strerror(errno));
	if ((device->send_cq && ibv_destroy_cq(device->send_cq)) ||
	    (device->recv_cq && ibv_destroy_cq(device->recv_cq)) ||
	    (device->channel && ibv_destroy_comp_channel(device->channel)))
		fail(verdict, "ending CQs and their channel: %s", strerror(errno));
	end_region(&device->sent, verdict);
	end_region(&device->received, verdict);
	end_region(&device->exposed, verdict);
	if ((device->pd && ibv_dealloc_pd(device->pd)) || (device->context && ibv_close_device(device->context)))
		fail(verdict, "closing the device: %s", strerror(errno));
}

static struct ibv_qp *create(struct device *device, struct ibv_qp_init_attr *init)
{
	return device->options->built ? create_to_build(device->pd, init) : ibv_create_qp(device->pd, init);
}

static void create_target(struct pair *pair, struct device *device, struct verdict *verdict)
{
	struct ibv_qp_init_attr_ex init = { .qp_type = IBV_QPT_XRC_RECV, .comp_mask = IBV_QP_INIT_ATTR_XRCD, .qp_context = pair,
					    .xrcd = device->xrcd };

	pair->target = ibv_create_qp_ex(device->context, &init);
	if (!pair->target)
		fail(verdict, "making an XRC target: %s", strerror(errno));
	else
		pair->target_number = pair->target->qp_num;
}

void pair_create(struct pair *pair, struct device *device, struct verdict *verdict)
{
	struct ibv_qp_init_attr init = {
		.qp_type = device->options->xrc ? IBV_QPT_XRC_SEND : IBV_QPT_RC, .send_cq = device->send_cq, .recv_cq = device->recv_cq, .qp_context = pair,
		.srq = device->options->xrc ? NULL : device->srq,
		.cap = { device->options->depth, receives_of(device->options), 2, 2, 64 }
	};

	pair->qp = create(device, &init);
	if (!pair->qp && (errno == EINVAL || errno == ENOMEM)) {
		init.cap.max_inline_data = 0;
		pair->qp = create(device, &init);
	}
	if (!pair->qp) {
		fail(verdict, "making a QP: %s", strerror(errno));
		return;
	}
	pair->number = pair->qp->qp_num;
	pair->psn = (uint32_t)scramble(pair->number) & 0xffffff;
	pair->max_inline = init.cap.max_inline_data;
	pair->max_send = init.cap.max_send_wr;
	pair->max_recv = init.cap.max_recv_wr;
	pair->srq = init.srq;
	if (device->options->xrc)
		create_target(pair, device, verdict);
}

static void listen_by(struct ibv_qp *qp, struct device *device, struct verdict *verdict)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = device->options->port,
				    .qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
						       IBV_ACCESS_REMOTE_ATOMIC };
	int error = ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);

	if (error)
		fail(verdict, "QP 0x%x to INIT: %s", qp->qp_num, strerror(error));
}

void pair_listen(struct pair *pair, struct device *device, struct verdict *verdict)
{
	listen_by(pair->qp, device, verdict);
	if (pair->target)
		listen_by(pair->target, device, verdict);
}

/* The attributes that say how much of what comes from the other end, or of what is sent, there may be: not of both kinds of XRC. */
static int without(const struct ibv_qp *qp, int mask)
{
	if (qp->qp_type == IBV_QPT_XRC_SEND)
		mask &= ~(IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
	if (qp->qp_type == IBV_QPT_XRC_RECV)
		mask &= ~(IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY);
	return mask;
}

static void connect_to(struct ibv_qp *qp, uint32_t number, const struct pair *pair, struct device *device, const struct address *there,
		       struct verdict *verdict)
{
	const struct address *here = &device->here;
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR, .path_mtu = here->mtu < there->mtu ? here->mtu : there->mtu,
		.dest_qp_num = number, .rq_psn = pair->their_psn, .max_dest_rd_atomic = here->reads,
		.min_rnr_timer = 12, /* 0.64 ms */
		.ah_attr = { .is_global = 1, .dlid = there->lid, .port_num = device->options->port,
			     .grh = { .dgid = there->gid, .sgid_index = (uint8_t)device->options->gid_index,
				      .hop_limit = 64 } }
	};
	int error = ibv_modify_qp(qp, &attr,
				  without(qp, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
						      IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER));

	if (error) {
		fail(verdict, "QP 0x%x to RTR: %s", qp->qp_num, strerror(error));
		return;
	}
	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTS, .sq_psn = pair->psn, .max_rd_atomic = there->reads,
		.timeout = 16, /* 0.27 s: an emulated machine may be that slow */
		.retry_cnt = 7, .rnr_retry = 7 /* for ever: receives are the flow control */
	};
	error = ibv_modify_qp(qp, &attr,
			      without(qp, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
						  IBV_QP_MAX_QP_RD_ATOMIC));
	if (error)
		fail(verdict, "QP 0x%x to RTS: %s", qp->qp_num, strerror(error));
}

void pair_connect(struct pair *pair, struct device *device, const struct address *there, struct verdict *verdict)
{
	connect_to(pair->qp, pair->target ? pair->their_target : pair->their_number, pair, device, there, verdict);
	if (pair->target && !verdict->failed)
		connect_to(pair->target, pair->their_number, pair, device, there, verdict);
}

void device_is_as_it_was(struct device *device, struct verdict *verdict)
{
	union ibv_gid gid;

	if (ibv_query_gid(device->context, device->options->port, device->options->gid_index, &gid))
		fail(verdict, "looking up the GID: %s", strerror(errno));
	else if (memcmp(&gid, &device->here.gid, sizeof(gid)))
		fail(verdict, "the GID is not what it was");
	uint32_t srqn = 0;

	if (device->xrcd && (ibv_get_srq_num(device->srq, &srqn) || srqn != device->here.srqn))
		fail(verdict, "the number of the shared receive queue is not what it was");
	if (device->exposed.mr->rkey != device->here.rkey)
		fail(verdict, "the rkey is not what it was");
}

void pair_is_as_it_was(struct pair *pair, struct verdict *verdict)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;
	int error = ibv_query_qp(pair->qp, &attr, IBV_QP_STATE | IBV_QP_DEST_QPN | IBV_QP_CAP, &init);

	if (error)
		fail(verdict, "looking up QP 0x%x: %s", pair->number, strerror(error));
	else if (pair->qp->qp_num != pair->number ||
		 attr.dest_qp_num != (pair->target ? pair->their_target : pair->their_number) ||
		 (pair->target && pair->target->qp_num != pair->target_number) ||
		 attr.qp_state != IBV_QPS_RTS || attr.cap.max_send_wr != pair->max_send ||
		 (!pair->srq && !pair->target && attr.cap.max_recv_wr != pair->max_recv) || init.qp_context != pair ||
		 init.srq != pair->srq)
		fail(verdict, "QP 0x%x is not what it was: number 0x%x, other end 0x%x, state %d, queues %u and %u",
		     pair->number, pair->qp->qp_num, attr.dest_qp_num, attr.qp_state, attr.cap.max_send_wr,
		     attr.cap.max_recv_wr);
}
