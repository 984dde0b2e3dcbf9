/* Memory regions that cannot be registered again on another device: passed on, and reasons against a move. */
#include <errno.h>

#include "base/verb_gate.h"
#include "objects/offer.h"
#include "real/export.h"
#include "shadow/pd.h"

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
	struct ibv_mr *mr = mig_real()->ibv_reg_dmabuf_mr(mig_real_pd(pd), offset, length, iova, fd, access);
	return mig_marked(pd->context, mr, "a dma-buf memory region");
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
	struct ibv_mr *mr = mig_real()->ibv_reg_mr_ex(mig_real_pd(pd), attr);
	return mig_marked(pd->context, mr, "a memory region made by ibv_reg_mr_ex");
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
	struct ibv_mr *mr = mig_real()->ibv_import_mr(mig_real_pd(pd), handle);
	return mig_marked(pd->context, mr, "an imported memory region");
}

void ibv_unimport_mr(struct ibv_mr *mr)
{
	struct mig_mark *marks = mig_marks_take(mr);

	if (mig_real()->ibv_unimport_mr)
		mig_real()->ibv_unimport_mr(mr);
	mig_marks_settle(marks, 0);
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
	void *made = mig_real()->ibv_alloc_buf(mig_real_pd(pd), size, buffer);
	if (made)
		mig_mark(mig_context(pd->context), *buffer, "a buffer made by ibv_alloc_buf");
	return made;
}

void ibv_free_buf(struct ibv_buf *buffer)
{
	struct mig_mark *marks = mig_marks_take(buffer);

	if (mig_real()->ibv_free_buf)
		mig_real()->ibv_free_buf(buffer);
	mig_marks_settle(marks, 0);
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
	struct ibv_mr *mr = mig_real()->ibv_reg_buf_mr(mig_real_pd(pd), buffer, addr, length, access);
	return mig_marked(pd->context, mr, "a memory region made by ibv_reg_buf_mr");
}
