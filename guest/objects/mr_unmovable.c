#include "objects/mr_unmovable.h"

#include <errno.h>

#include "base/verb_gate.h"
#include "objects/offer.h"
#include "real/export.h"
#include "shadow/pd.h"
#include "shadow/process.h"

struct ibv_mr *ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova, int fd,
				 int access)
{
	if (!mig_real()->ibv_reg_dmabuf_mr) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	if (!mig_pd(pd))
		return mig_real()->ibv_reg_dmabuf_mr(pd, offset, length, iova, fd, access);
	MIG_VERB;
	mig_cannot_migrate("a dma-buf memory region");
	return mig_real()->ibv_reg_dmabuf_mr(mig_real_pd(pd), offset, length, iova, fd, access);
}

struct ibv_mr *ibv_reg_mr_ex(struct ibv_pd *pd, struct ibv_mr_init_attr *attr)
{
	if (!mig_real()->ibv_reg_mr_ex) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	if (!mig_pd(pd))
		return mig_real()->ibv_reg_mr_ex(pd, attr);
	MIG_VERB;
	mig_cannot_migrate("a memory region made by ibv_reg_mr_ex");
	return mig_real()->ibv_reg_mr_ex(mig_real_pd(pd), attr);
}

struct ibv_mr *ibv_import_mr(struct ibv_pd *pd, uint32_t handle)
{
	if (!mig_real()->ibv_import_mr) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	if (!mig_pd(pd))
		return mig_real()->ibv_import_mr(pd, handle);
	MIG_VERB;
	mig_cannot_migrate("an imported memory region");
	return mig_real()->ibv_import_mr(mig_real_pd(pd), handle);
}

void *ibv_alloc_buf(struct ibv_pd *pd, size_t size, struct ibv_buf **buffer)
{
	if (!mig_real()->ibv_alloc_buf) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	if (!mig_pd(pd))
		return mig_real()->ibv_alloc_buf(pd, size, buffer);
	MIG_VERB;
	mig_cannot_migrate("a buffer made by ibv_alloc_buf");
	return mig_real()->ibv_alloc_buf(mig_real_pd(pd), size, buffer);
}

struct ibv_mr *ibv_reg_buf_mr(struct ibv_pd *pd, struct ibv_buf *buffer, void *addr, size_t length, int access)
{
	if (!mig_real()->ibv_reg_buf_mr) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	if (!mig_pd(pd))
		return mig_real()->ibv_reg_buf_mr(pd, buffer, addr, length, access);
	MIG_VERB;
	mig_cannot_migrate("a memory region made by ibv_reg_buf_mr");
	return mig_real()->ibv_reg_buf_mr(mig_real_pd(pd), buffer, addr, length, access);
}

static struct ibv_mr *alloc_null_mr(struct ibv_pd *pd)
{
	MIG_VERB;
	mig_cannot_migrate("a null memory region");
	return mig_real_operations(pd->context)->alloc_null_mr(mig_real_pd(pd));
}

void mig_mr_unmovable_offer(struct mig_context *context)
{
	MIG_OFFER(context, alloc_null_mr, alloc_null_mr);
}
