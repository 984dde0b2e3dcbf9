/*
 * In a restore this process's connections are made again while its other threads stand where they were stopped. If one of
 * them stands inside malloc, or the loader, with the lock that the control thread needs, both wait for ever. So the locks
 * are tried at the dump, when they can still be left (criu_plugin/rehearsal.c).
 */
#define _GNU_SOURCE
#include "move/rehearse.h"

#include <fcntl.h>
#include <link.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/elf.h"
#include "base/lock.h"
#include "base/pages.h"
#include "objects/device.h"
#include "real/real.h"
#include "shadow/channel.h"
#include "shadow/cq.h"
#include "shadow/process.h"
#include "shadow/qp.h"
#include "shadow/srq.h"
#include "shadow/xrcd.h"

static void try_lock(struct mig_lock *lock)
{
	mig_lock(lock);
	mig_unlock(lock);
}

static void try_own_locks(void)
{
	try_lock(&mig.lock);
	MIG_EACH_CONTEXT(context) {
		try_lock(&context->lock);
		MIG_EACH_OF(context, channels, channel, mig_channel)
			try_lock(&channel->lock);
		MIG_EACH_OF(context, cqs, cq, mig_cq)
			try_lock(&cq->lock);
		MIG_EACH_OF(context, xrcds, xrcd, mig_xrcd)
			try_lock(&xrcd->nothing.lock);
		MIG_EACH_OF(context, srqs, srq, mig_srq)
			try_lock(&srq->lock);
		MIG_EACH_OF(context, qps, qp, mig_qp) {
			try_lock(&qp->send_lock);
			try_lock(&qp->recv_lock);
		}
	}
}

/* From the bins of small pieces to what is mapped for itself. */
static const size_t sizes[] = { 24, 200, 2000, 20000, 200000, 2000000 };

#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

/* What another thread has allocated goes back to that thread's arena, so every one is tried: this looks into each. */
static void try_every_arena(void)
{
	typedef struct {
		size_t numbers[10];
	} look_2(void);
	typedef struct {
		int numbers[10];
	} look(void);
	look_2 *mallinfo2 = (look_2 *)(uintptr_t)mig_elf_global_symbol("mallinfo2");
	look *mallinfo = (look *)(uintptr_t)mig_elf_global_symbol("mallinfo");

	if (mallinfo2)
		mallinfo2();
	else if (mallinfo)
		mallinfo();
}

static void try_allocator(void)
{
	void *pieces[SIZES];

	for (size_t i = 0; i < SIZES; i++)
		pieces[i] = malloc(sizes[i]);
	for (size_t i = 0; i < SIZES; i++)
		free(pieces[i]);
	try_every_arena();
}

static int look_at_first(struct dl_phdr_info *info, size_t size, void *unused)
{
	(void)info;
	(void)size;
	(void)unused;
	return 1;
}

/* Two locks: that of its lists, and that of loading itself. */
static void try_loader(void)
{
	typedef int iterate(int (*)(struct dl_phdr_info *, size_t, void *), void *);
	typedef int address(const void *, void *);
	void *information[8]; /* Dl_info has four */
	iterate *dl_iterate_phdr_ = (iterate *)(uintptr_t)mig_elf_global_symbol("dl_iterate_phdr");
	address *dladdr_ = (address *)(uintptr_t)mig_elf_global_symbol("dladdr");

	if (dl_iterate_phdr_)
		dl_iterate_phdr_(look_at_first, NULL);
	if (dladdr_)
		dladdr_((const void *)(uintptr_t)mig_rehearse, information);
}

/* What there is of XRC besides. */
static void try_xrc(const struct mig_real *real, struct ibv_context *device, struct ibv_pd *pd, struct ibv_cq *cq)
{
	struct ibv_xrcd_init_attr domain = { IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, -1, O_CREAT };
	struct verbs_context *verbs = verbs_get_ctx_op(device, open_xrcd);
	struct ibv_xrcd *xrcd = verbs && pd && cq ? verbs->open_xrcd(device, &domain) : NULL;
	struct ibv_srq_init_attr_ex queue = { .attr = { .max_wr = 1, .max_sge = 1 }, .srq_type = IBV_SRQT_XRC, .pd = pd, .cq = cq,
					      .xrcd = xrcd,
					      .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD | IBV_SRQ_INIT_ATTR_XRCD |
							   IBV_SRQ_INIT_ATTR_CQ };
	struct ibv_qp_init_attr_ex target = { .qp_type = IBV_QPT_XRC_RECV, .comp_mask = IBV_QP_INIT_ATTR_XRCD, .xrcd = xrcd };
	struct ibv_srq *srq = xrcd && verbs->create_srq_ex ? verbs->create_srq_ex(device, &queue) : NULL;
	struct ibv_qp *qp = xrcd && verbs->create_qp_ex ? verbs->create_qp_ex(device, &target) : NULL;

	if (qp)
		real->ibv_destroy_qp(qp);
	if (srq)
		real->ibv_destroy_srq(srq);
	if (xrcd)
		verbs->close_xrcd(xrcd);
}

/* One object of each kind that a rebuild makes; libibverbs and the device's own library have locks, too. */
static void try_objects(const struct mig_real *real, struct ibv_context *device, int shares, int is_of_xrc)
{
	void *memory = mig_pages_alloc(4096);
	struct ibv_pd *pd = real->ibv_alloc_pd(device);
	struct ibv_mr *mr = pd && memory ? real->ibv_reg_mr(pd, memory, 4096, IBV_ACCESS_LOCAL_WRITE) : NULL;
	struct ibv_comp_channel *channel = real->ibv_create_comp_channel(device);
	struct ibv_cq *cq = real->ibv_create_cq(device, 1, NULL, channel, 0);
	struct ibv_qp_init_attr attributes = {
		.send_cq = cq,
		.recv_cq = cq,
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1 },
	};
	struct ibv_qp *qp = pd && cq ? real->ibv_create_qp(pd, &attributes) : NULL;
	struct ibv_srq_init_attr shared = { .attr = { .max_wr = 1, .max_sge = 1 } };
	struct ibv_srq *srq = pd && shares ? real->ibv_create_srq(pd, &shared) : NULL;

	if (is_of_xrc)
		try_xrc(real, device, pd, cq);
	if (srq)
		real->ibv_destroy_srq(srq);
	if (qp)
		real->ibv_destroy_qp(qp);
	if (cq)
		real->ibv_destroy_cq(cq);
	if (channel)
		real->ibv_destroy_comp_channel(channel);
	if (mr)
		real->ibv_dereg_mr(mr);
	if (pd)
		real->ibv_dealloc_pd(pd);
	mig_pages_free(memory);
}

static void try_devices(void)
{
	const struct mig_real *real = mig_real();

	MIG_EACH_CONTEXT(context) {
		struct ibv_context *device = real ? mig_open_by_name(context->device->real_name) : NULL;

		if (!device)
			continue;
		try_objects(real, device, context->srqs.next != &context->srqs, context->xrcds.next != &context->xrcds);
		real->ibv_close_device(device);
	}
}

void mig_rehearse(void)
{
	try_own_locks();
	try_loader();
	try_devices();
	try_allocator();
}
