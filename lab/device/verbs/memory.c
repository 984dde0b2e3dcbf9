/* Protection domains, memory regions, memory windows, XRC domains. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "export.h"
#include "soft.h"

/* An object's memory, and the call that makes it. NULL with errno. */
static void *make(struct ibv_context *context, size_t size, struct rnic_call *call, const char *function)
{
	struct device_link *link = soft_link(context, function);
	void *object = calloc(1, size);
	int error = object ? device_link_call(link, call) : ENOMEM;

	if (!error)
		return object;
	free(object);
	errno = error;
	return NULL;
}

EXPORT struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
	struct rnic_call call = { .name = CALL_ALLOC_PD };
	struct soft_pd *pd = make(context, sizeof(*pd), &call, "alloc_pd");

	if (!pd)
		return NULL;
	pd->ibv.context = context;
	pd->ibv.handle = call.handle;
	return &pd->ibv;
}

EXPORT int ibv_dealloc_pd(struct ibv_pd *ibv)
{
	struct soft_pd *pd = (struct soft_pd *)ibv;

	/* A parent domain is only another name for its parent. */
	int error = pd->is_parent_domain ? 0 : soft_end(ibv->context, CALL_DEALLOC_PD, ibv->handle, "dealloc_pd");
	if (!error)
		free(pd);
	return error;
}

static struct ibv_pd *alloc_parent_domain(struct ibv_context *context, struct ibv_parent_domain_init_attr *attr)
{
	const uint32_t known = IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS | IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT;
	struct device_link *link = soft_link(context, "alloc_parent_domain");
	struct soft_pd *pd = NULL;

	errno = EOPNOTSUPP;
	if (attr->pd && attr->pd->context != context)
		abort();
	if (attr->td && attr->td->context != context)
		abort();
	if (link->ways & RNIC_PARENT_DOMAINS && attr->pd && !(attr->comp_mask & ~known))
		pd = calloc(1, sizeof(*pd));
	if (!pd)
		return NULL;
	pd->ibv.context = context;
	pd->ibv.handle = attr->pd->handle;
	pd->is_parent_domain = true;
	pd->attr = *attr;
	return &pd->ibv;
}

#define OWNED 4096

int soft_own(struct soft_owned *owned, struct ibv_pd *ibv)
{
	struct soft_pd *pd = (struct soft_pd *)ibv;
	const struct ibv_parent_domain_init_attr *attr = pd ? &pd->attr : NULL;

	if (!attr || !(attr->comp_mask & IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS))
		return 0;
	void *memory = attr->alloc(ibv, attr->pd_context, OWNED, OWNED, 1);
	if (!memory)
		return ENOMEM;
	if (memory == IBV_ALLOCATOR_USE_DEFAULT)
		return 0;
	memset(memory, 0, OWNED);
	owned->pd = pd;
	owned->memory = memory;
	return 0;
}

void soft_disown(struct soft_owned *owned)
{
	if (owned->pd)
		owned->pd->attr.free(&owned->pd->ibv, owned->pd->attr.pd_context, owned->memory, 1);
}

/* Only a promise of the application's. */
static struct ibv_td *alloc_td(struct ibv_context *context, struct ibv_td_init_attr *attr)
{
	struct device_link *link = soft_link(context, "alloc_td");
	struct ibv_td *td = NULL;

	errno = EOPNOTSUPP;
	if (link->ways & RNIC_PARENT_DOMAINS && !attr->comp_mask)
		td = calloc(1, sizeof(*td));
	if (td)
		td->context = context;
	return td;
}

static int dealloc_td(struct ibv_td *td)
{
	soft_ends_alone(td->context, "dealloc_td");
	free(td);
	return 0;
}

/* The kernel pins what is registered. Nothing is written: MS_ASYNC has only the range looked at. */
static bool can_be_pinned(const void *addr, size_t length)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)addr & ~(page - 1);
	int saved = errno;
	bool can = !length || !msync((void *)start, (uintptr_t)addr + length - start, MS_ASYNC);

	errno = can ? saved : EFAULT;
	return can;
}

EXPORT struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, unsigned int access)
{
	struct rnic_call call = { .name = CALL_REG_MR };

	call.mr.address = (uintptr_t)addr;
	call.mr.length = length;
	call.mr.iova = iova;
	call.mr.pd = pd->handle;
	call.mr.access = access & ~(unsigned int)IBV_ACCESS_OPTIONAL_RANGE;
	if (!(access & IBV_ACCESS_ON_DEMAND) && !can_be_pinned(addr, length))
		return NULL;
	struct soft_mr *mr = make(pd->context, sizeof(*mr), &call, "reg_mr");
	if (!mr)
		return NULL;
	mr->ibv = (struct ibv_mr){ .context = pd->context, .pd = pd, .addr = addr, .length = length,
				   .handle = call.handle, .lkey = call.mr.lkey, .rkey = call.mr.rkey };
	mr->access = access;
	return &mr->ibv;
}

EXPORT struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
	return ibv_reg_mr_iova2(pd, addr, length, (uintptr_t)addr, (unsigned int)access);
}

EXPORT struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, int access)
{
	return ibv_reg_mr_iova2(pd, addr, length, iova, (unsigned int)access);
}

EXPORT int ibv_dereg_mr(struct ibv_mr *ibv)
{
	struct soft_dm *dm = ((struct soft_mr *)ibv)->dm;
	int error = soft_end(ibv->context, CALL_DEREG_MR, ibv->handle, "dereg_mr");

	if (error)
		return error;
	if (dm)
		__atomic_sub_fetch(&dm->users, 1, __ATOMIC_RELAXED);
	free(ibv);
	return 0;
}

EXPORT int ibv_rereg_mr(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *addr, size_t length, int access)
{
	const int known = IBV_REREG_MR_CHANGE_TRANSLATION | IBV_REREG_MR_CHANGE_PD | IBV_REREG_MR_CHANGE_ACCESS;
	struct rnic_call call = { .name = CALL_REREG_MR, .handle = mr->handle };
	struct device_link *link = soft_link(mr->context, "rereg_mr");

	if (!flags || flags & ~known || (flags & IBV_REREG_MR_CHANGE_TRANSLATION && (!length || !addr)) ||
	    (flags & IBV_REREG_MR_CHANGE_PD && !pd)) {
		errno = EINVAL;
		return IBV_REREG_MR_ERR_INPUT;
	}
	call.mr.flags = flags;
	call.mr.pd = pd ? pd->handle : RNIC_NONE;
	call.mr.address = (uintptr_t)addr;
	call.mr.length = length;
	call.mr.access = (unsigned int)access & ~(unsigned int)IBV_ACCESS_OPTIONAL_RANGE;
	int error = device_link_call(link, &call);
	if (error) {
		errno = error;
		return IBV_REREG_MR_ERR_CMD;
	}
	mr->lkey = call.mr.lkey;
	mr->rkey = call.mr.rkey;
	if (flags & IBV_REREG_MR_CHANGE_ACCESS)
		((struct soft_mr *)mr)->access = (unsigned int)access;
	if (flags & IBV_REREG_MR_CHANGE_PD)
		mr->pd = pd;
	if (flags & IBV_REREG_MR_CHANGE_TRANSLATION) {
		mr->addr = addr;
		mr->length = length;
	}
	return 0;
}

/* With a copy of their process: a region begins at 0, whatever it is of. */
static bool is_within(const struct soft_dm *dm, uint64_t offset, size_t length)
{
	return offset <= dm->length && length <= dm->length - offset;
}

static int copy_to_dm(struct ibv_dm *ibv, uint64_t offset, const void *from, size_t length)
{
	struct soft_dm *dm = (struct soft_dm *)ibv;

	soft_link(ibv->context, "memcpy_to_dm");
	if (!is_within(dm, offset, length))
		return EFAULT;
	memcpy(dm->memory + offset, from, length);
	return 0;
}

static int copy_from_dm(void *to, struct ibv_dm *ibv, uint64_t offset, size_t length)
{
	struct soft_dm *dm = (struct soft_dm *)ibv;

	soft_link(ibv->context, "memcpy_from_dm");
	if (!is_within(dm, offset, length))
		return EFAULT;
	memcpy(to, dm->memory + offset, length);
	return 0;
}

static struct ibv_dm *alloc_dm(struct ibv_context *context, struct ibv_alloc_dm_attr *attr)
{
	struct soft_dm *dm = NULL;

	soft_link(context, "alloc_dm");
	errno = ENOMEM;
	if (attr->comp_mask || attr->length > SOFT_MAX_DM || !(dm = calloc(1, sizeof(*dm))))
		return NULL;
	if (!(dm->memory = calloc(1, attr->length ? attr->length : 1))) {
		free(dm);
		return NULL;
	}
	dm->length = attr->length;
	dm->ibv.context = context;
	dm->ibv.memcpy_to_dm = copy_to_dm;
	dm->ibv.memcpy_from_dm = copy_from_dm;
	return &dm->ibv;
}

static int free_dm(struct ibv_dm *ibv)
{
	struct soft_dm *dm = (struct soft_dm *)ibv;

	soft_ends_alone(ibv->context, "free_dm");
	if (__atomic_load_n(&dm->users, __ATOMIC_RELAXED))
		return EBUSY;
	memset(dm->memory, 0xdd, dm->length);
	free(dm->memory);
	free(dm);
	return 0;
}

/* As mlx5 has it: of zero base only. */
static struct ibv_mr *reg_dm_mr(struct ibv_pd *pd, struct ibv_dm *ibv, uint64_t offset, size_t length, unsigned int access)
{
	struct soft_dm *dm = (struct soft_dm *)ibv;

	errno = EINVAL;
	if (ibv->context != pd->context)
		abort();
	if (!is_within(dm, offset, length) || !(access & IBV_ACCESS_ZERO_BASED))
		return NULL;
	struct ibv_mr *mr = ibv_reg_mr_iova2(pd, dm->memory + offset, length, 0, access);
	if (!mr)
		return NULL;
	mr->addr = NULL;
	((struct soft_mr *)mr)->dm = dm;
	__atomic_add_fetch(&dm->users, 1, __ATOMIC_RELAXED);
	return mr;
}

static struct ibv_mw *alloc_mw(struct ibv_pd *pd, enum ibv_mw_type type)
{
	struct rnic_call call = { .name = CALL_ALLOC_MW };

	call.mw.pd = pd->handle;
	call.mw.type = type;
	struct soft_mw *mw = make(pd->context, sizeof(*mw), &call, "alloc_mw");
	if (!mw)
		return NULL;
	mw->ibv = (struct ibv_mw){ .context = pd->context, .pd = pd, .rkey = call.mw.rkey, .handle = call.handle,
				   .type = type };
	return &mw->ibv;
}

static int dealloc_mw(struct ibv_mw *ibv)
{
	int error = soft_end(ibv->context, CALL_DEALLOC_MW, ibv->handle, "dealloc_mw");

	if (!error)
		free(ibv);
	return error;
}

/* Processes share a domain by the file that they open it with. */
static struct ibv_xrcd *open_xrcd(struct ibv_context *context, struct ibv_xrcd_init_attr *attr)
{
	struct rnic_call call = { .name = CALL_OPEN_XRCD };
	struct stat file;

	if (!(attr->comp_mask & IBV_XRCD_INIT_ATTR_FD) || !(attr->comp_mask & IBV_XRCD_INIT_ATTR_OFLAGS)) {
		errno = EINVAL;
		return NULL;
	}
	call.xrcd.flags = attr->oflags;
	if (attr->fd != -1) {
		if (fstat(attr->fd, &file))
			return NULL;
		call.xrcd.name = (uint64_t)file.st_dev << 40 ^ file.st_ino;
	}
	struct soft_xrcd *xrcd = make(context, sizeof(*xrcd), &call, "open_xrcd");
	if (!xrcd)
		return NULL;
	xrcd->ibv.context = context;
	xrcd->handle = call.handle;
	return &xrcd->ibv;
}

static int close_xrcd(struct ibv_xrcd *ibv)
{
	struct soft_xrcd *xrcd = (struct soft_xrcd *)ibv;
	int error = soft_end(ibv->context, CALL_CLOSE_XRCD, xrcd->handle, "close_xrcd");

	if (!error)
		free(xrcd);
	return error;
}

void soft_fill_memory(struct verbs_context *verbs)
{
	verbs->context.ops.alloc_mw = alloc_mw;
	verbs->context.ops.dealloc_mw = dealloc_mw;
	verbs->alloc_dm = alloc_dm;
	verbs->free_dm = free_dm;
	verbs->reg_dm_mr = reg_dm_mr;
	verbs->alloc_td = alloc_td;
	verbs->dealloc_td = dealloc_td;
	verbs->alloc_parent_domain = alloc_parent_domain;
	verbs->open_xrcd = open_xrcd;
	verbs->close_xrcd = close_xrcd;
}

/* No memory of another kind: what Soft-RoCE says, too. */
EXPORT struct ibv_mr *ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova, int fd, int access)
{
	(void)offset, (void)length, (void)iova, (void)fd, (void)access;
	soft_link(pd->context, "reg_dmabuf_mr");
	errno = EOPNOTSUPP;
	return NULL;
}

/* Another name for one of this context, as a parent domain is. */
EXPORT struct ibv_pd *ibv_import_pd(struct ibv_context *context, uint32_t handle)
{
	struct soft_pd *pd = NULL;

	errno = EOPNOTSUPP;
	if (soft_link(context, "import_pd")->ways & RNIC_IMPORTS)
		pd = calloc(1, sizeof(*pd));
	if (!pd)
		return NULL;
	pd->ibv.context = context;
	pd->ibv.handle = handle;
	pd->is_parent_domain = true;
	return &pd->ibv;
}

EXPORT struct ibv_mr *ibv_import_mr(struct ibv_pd *pd, uint32_t handle)
{
	(void)pd, (void)handle;
	errno = EOPNOTSUPP;
	return NULL;
}

EXPORT struct ibv_dm *ibv_import_dm(struct ibv_context *context, uint32_t handle)
{
	(void)context, (void)handle;
	errno = EOPNOTSUPP;
	return NULL;
}

EXPORT void ibv_unimport_pd(struct ibv_pd *pd) { free(pd); }
EXPORT void ibv_unimport_mr(struct ibv_mr *mr) { (void)mr; }
EXPORT void ibv_unimport_dm(struct ibv_dm *dm) { (void)dm; }

/* Nothing is pinned: the device reads and writes the process's memory as it is then, a child has memory of its own. */
EXPORT int ibv_fork_init(void) { return 0; }
EXPORT enum ibv_fork_status ibv_is_fork_initialized(void) { return IBV_FORK_UNNEEDED; }
EXPORT int ibv_dontfork_range(void *base, size_t size) { (void)base, (void)size; return 0; }
EXPORT int ibv_dofork_range(void *base, size_t size) { (void)base, (void)size; return 0; }
