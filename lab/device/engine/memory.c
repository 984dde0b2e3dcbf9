/* Memory regions, and the rights of keys. */
#include "internal.h"

#define REMOTE_CHANGES (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)
#define FOR_OTHERS (REMOTE_CHANGES | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_MW_BIND)

uint32_t rnic_key_variant(struct rnic_device *device)
{
	return device->settings[RNIC_SET_KEY_VARIANTS] ? ++device->last_variant & 0x7f : 0;
}

/* The lowest bit is what an rkey differs in from its lkey. */
static void name(struct rnic_device *device, struct rnic_mr *mr, unsigned int access)
{
	uint32_t variant = rnic_key_variant(device) << 1;

	mr->lkey = mr->object.link.number << 8 | variant;
	mr->rkey = mr->lkey | (device->settings[RNIC_SET_RKEY_DIFFERS] ? 1 : 0);
	if (!device->settings[RNIC_SET_LOCAL_RKEYS] && !(access & FOR_OTHERS))
		mr->rkey = 0;
}

static int check_access(const struct rnic_device *device, unsigned int access)
{
	const unsigned int known = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
				   IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND | IBV_ACCESS_ZERO_BASED |
				   IBV_ACCESS_OPTIONAL_RANGE;

	if (access & IBV_ACCESS_ON_DEMAND && !device->settings[RNIC_SET_ON_DEMAND])
		return EOPNOTSUPP;
	if (access & ~(known | IBV_ACCESS_ON_DEMAND))
		return EINVAL;
	/* ib_check_mr_access: what others may change, the owner may. */
	if (access & REMOTE_CHANGES && !(access & IBV_ACCESS_LOCAL_WRITE))
		return EINVAL;
	if (access & IBV_ACCESS_MW_BIND && !device->settings[RNIC_SET_MAX_MW])
		return EOPNOTSUPP;
	return 0;
}

int rnic_reg_mr(struct rnic_context *context, uint32_t pd_handle, uint64_t address, uint64_t length, uint64_t iova,
		unsigned int access, uint32_t *handle, uint32_t *lkey, uint32_t *rkey)
{
	struct rnic_device *device = context->device;
	struct rnic_pd *pd = rnic_find(context, RNIC_PD, pd_handle);
	int error = check_access(device, access);
	struct rnic_mr *mr;

	/* Of on-demand paging there is a region that is all memory. */
	bool all = access & IBV_ACCESS_ON_DEMAND && !address && !iova && length == UINT64_MAX;

	if (!pd || (length > device->settings[RNIC_SET_MAX_MR_SIZE] && !all) || address + length < address || iova + length < iova)
		return EINVAL;
	if (error)
		return error;
	if (device->memory.count >= device->settings[RNIC_SET_MAX_MR])
		return ENOMEM;
	mr = rnic_make(context, RNIC_MR, sizeof(*mr));
	if (!mr)
		return ENOMEM;
	uint32_t number = rnic_number_take(&device->keys, &device->memory, device->settings[RNIC_SET_REUSE_NUMBERS]);
	if (rnic_table_add(&device->memory, &mr->object.link, number)) {
		rnic_unmake(RNIC_MR, mr);
		return ENOMEM;
	}
	name(device, mr, access);
	mr->pd = pd;
	mr->address = address;
	mr->length = length;
	mr->iova = access & IBV_ACCESS_ZERO_BASED ? 0 : iova;
	mr->access = access;
	pd->object.users++;
	*handle = mr->object.handle;
	*lkey = mr->lkey;
	*rkey = mr->rkey;
	return 0;
}

int rnic_rereg_mr(struct rnic_context *context, uint32_t handle, int flags, uint32_t pd_handle, uint64_t address,
		  uint64_t length, unsigned int access, uint32_t *lkey, uint32_t *rkey)
{
	struct rnic_mr *mr = rnic_find(context, RNIC_MR, handle);
	struct rnic_pd *pd = flags & IBV_REREG_MR_CHANGE_PD ? rnic_find(context, RNIC_PD, pd_handle) : NULL;
	int error = flags & IBV_REREG_MR_CHANGE_ACCESS ? check_access(context->device, access) : 0;

	if (!mr || !flags || (flags & IBV_REREG_MR_CHANGE_PD && !pd) ||
	    flags & ~(IBV_REREG_MR_CHANGE_TRANSLATION | IBV_REREG_MR_CHANGE_PD | IBV_REREG_MR_CHANGE_ACCESS))
		return EINVAL;
	if (error)
		return error;
	if (mr->object.users)
		return EBUSY;
	if (pd) {
		mr->pd->object.users--;
		pd->object.users++;
		mr->pd = pd;
	}
	if (flags & IBV_REREG_MR_CHANGE_ACCESS)
		mr->access = access;
	if (flags & IBV_REREG_MR_CHANGE_TRANSLATION) {
		mr->address = mr->iova = address;
		mr->length = length;
	}
	*lkey = mr->lkey;
	*rkey = mr->rkey;
	return 0;
}

void rnic_end_mr(struct rnic_mr *mr)
{
	struct rnic_device *device = mr->object.context->device;

	mr->pd->object.users--;
	rnic_table_remove(&device->memory, &mr->object.link);
	rnic_number_give(&device->keys, mr->object.link.number);
	rnic_unmake(RNIC_MR, mr);
}

int rnic_dereg_mr(struct rnic_context *context, uint32_t handle)
{
	struct rnic_mr *mr = rnic_find(context, RNIC_MR, handle);

	/* EINVAL with windows on it, as rxe_dereg_mr. */
	if (!mr || mr->object.users)
		return EINVAL;
	rnic_end_mr(mr);
	return 0;
}

static bool covers(uint64_t start, uint64_t size, uint64_t address, uint64_t length)
{
	return address >= start && length <= size && address - start <= size - length;
}

uint64_t rnic_mr_address(const struct rnic_mr *mr, uint64_t iova) { return mr->address + (iova - mr->iova); }

static struct rnic_mr *find(struct rnic_device *device, uint32_t key)
{
	struct rnic_link *link = rnic_table_find(&device->memory, key >> 8);

	return link ? rnic_of(link, struct rnic_mr, object.link) : NULL;
}

struct rnic_mr *rnic_local(struct rnic_device *device, struct rnic_pd *pd, const struct rnic_sge *sge, uint32_t length,
			   unsigned int access)
{
	struct rnic_mr *mr = find(device, sge->lkey);

	if (!mr || mr->is_window || mr->invalid || mr->lkey != sge->lkey || mr->pd != pd ||
	    (mr->access & access) != access || !covers(mr->iova, mr->length, sge->address, length))
		return NULL;
	return mr;
}

struct rnic_mr *rnic_remote(struct rnic_qp *qp, struct rnic_pd *pd, uint32_t rkey, uint64_t *address, uint64_t length,
			    unsigned int access)
{
	struct rnic_mr *mr = find(qp->device, rkey);

	if (mr && mr->is_window) {
		struct rnic_mw *mw = (struct rnic_mw *)mr;
		bool zero_based = mw->access & IBV_ACCESS_ZERO_BASED;

		if (mw->rkey != rkey || mw->pd != pd || !mw->mr || (mw->access & access) != access ||
		    (mw->type == IBV_MW_TYPE_2 && mw->qpn != rnic_qpn(qp)) ||
		    !covers(zero_based ? 0 : mw->address, mw->length, *address, length))
			return NULL;
		if (zero_based)
			*address += mw->address;
		return mw->mr;
	}
	if (!mr || mr->invalid || mr->rkey != rkey || mr->pd != pd || (mr->access & access) != access ||
	    !covers(mr->iova, mr->length, *address, length))
		return NULL;
	return mr;
}

/* All SGEs of one request belong to one context: their region's. */
static enum ibv_wc_status move(struct rnic_device *device, struct rnic_pd *pd, const struct rnic_sge *sges, uint32_t count,
			       uint64_t offset, uint32_t length, const void *from, void *to)
{
	struct rnic_span spans[RNIC_MAX_SGE];
	struct rnic_context *context = pd->object.context;
	int used = 0;
	int error;

	for (uint32_t i = 0; i < count && length; i++) {
		uint32_t skip, part;

		if (offset >= sges[i].length) {
			offset -= sges[i].length;
			continue;
		}
		skip = (uint32_t)offset;
		part = sges[i].length - skip < length ? sges[i].length - skip : length;
		offset = 0;
		struct rnic_mr *mr = rnic_local(device, pd, &sges[i], sges[i].length, from ? IBV_ACCESS_LOCAL_WRITE : 0);
		if (!mr)
			return IBV_WC_LOC_PROT_ERR;
		spans[used++] = (struct rnic_span){ rnic_mr_address(mr, sges[i].address) + skip, part };
		length -= part;
	}
	if (length)
		return IBV_WC_LOC_LEN_ERR;
	if (!used)
		return IBV_WC_SUCCESS;
	error = from ? context->sinks->write(context->process, spans, used, from) :
		       context->sinks->read(context->process, spans, used, to);
	return error ? IBV_WC_LOC_PROT_ERR : IBV_WC_SUCCESS;
}

enum ibv_wc_status rnic_gather(struct rnic_device *device, struct rnic_pd *pd, const struct rnic_sge *sges, uint32_t count,
			       uint64_t offset, uint32_t length, void *flat)
{
	return move(device, pd, sges, count, offset, length, NULL, flat);
}

enum ibv_wc_status rnic_scatter(struct rnic_device *device, struct rnic_pd *pd, const struct rnic_sge *sges, uint32_t count,
				uint64_t offset, uint32_t length, const void *flat)
{
	return move(device, pd, sges, count, offset, length, flat, NULL);
}
