/* Protection domains and memory regions. */
#include <errno.h>
#include <stdlib.h>

#include "real/export.h"
#include "base/keymap.h"
#include "objects/object.h"
#include "base/verb_gate.h"

struct ibv_pd *mig_pd_wrap(struct mig_context *context, struct ibv_pd *real)
{
	struct mig_pd *pd = calloc(1, sizeof(*pd));

	if (!pd) {
		mig_real()->ibv_dealloc_pd(real);
		errno = ENOMEM;
		return NULL;
	}
	pd->real = real;
	pd->ibv.context = &context->verbs.context;
	pd->ibv.handle = real->handle;
	MIG_LOCKED(&context->lock);
	mig_list_add(&context->pds, &pd->link);
	return &pd->ibv;
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *ibv)
{
	struct mig_context *context = mig_context(ibv);

	if (!context)
		return mig_real()->ibv_alloc_pd(ibv);
	MIG_VERB;
	struct ibv_pd *real = mig_real()->ibv_alloc_pd(context->real);
	return real ? mig_pd_wrap(context, real) : NULL;
}

int ibv_dealloc_pd(struct ibv_pd *ibv)
{
	struct mig_pd *pd = mig_pd(ibv);

	if (!pd)
		return mig_real()->ibv_dealloc_pd(ibv);
	MIG_VERB;
	int error = mig_real()->ibv_dealloc_pd(pd->real);
	if (error)
		return error;
	mig_lock(&mig_context(ibv->context)->lock);
	mig_list_remove(&pd->link);
	mig_unlock(&mig_context(ibv->context)->lock);
	free(pd);
	return 0;
}

struct ibv_pd *ibv_import_pd(struct ibv_context *ibv, uint32_t handle)
{
	struct mig_context *context = mig_context(ibv);

	if (!mig_real()->ibv_import_pd) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	if (!context)
		return mig_real()->ibv_import_pd(ibv, handle);
	MIG_VERB;
	mig_cannot_migrate("an imported protection domain");
	return mig_real()->ibv_import_pd(context->real, handle);
}

/* How a region was asked for; kept to ask again in the same way. */
enum way { WAY_PLAIN, WAY_IOVA, WAY_IOVA2 };

static struct ibv_mr *ask(enum way way, struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
			  unsigned int access)
{
	const struct mig_real *real = mig_real();

	if (way == WAY_IOVA2 && real->ibv_reg_mr_iova2)
		return real->ibv_reg_mr_iova2(pd, addr, length, iova, access);
	if (way == WAY_IOVA && real->ibv_reg_mr_iova)
		return real->ibv_reg_mr_iova(pd, addr, length, iova, (int)access);
	if (way == WAY_PLAIN)
		return real->ibv_reg_mr(pd, addr, length, (int)access);
	errno = EOPNOTSUPP;
	return NULL;
}

static int list_keys(struct mig_context *context, struct mig_mr *mr)
{
	int error = mig_numbers_add(&context->vlkeys, mr->ibv.lkey, mr);

	if (!error && (error = mig_numbers_add(&context->vrkeys, mr->ibv.rkey, mr)))
		mig_numbers_remove(&context->vlkeys, mr->ibv.lkey, mr);
	return error;
}

static void unlist_keys(struct mig_context *context, struct mig_mr *mr)
{
	mig_numbers_remove(&context->vlkeys, mr->ibv.lkey, mr);
	mig_numbers_remove(&context->vrkeys, mr->ibv.rkey, mr);
}

/* Before a move a number cannot be there twice: only then the list is worth its memory. Must hold the lock. */
static int list_all_keys(struct mig_context *context)
{
	if (context->keys_listed)
		return 0;
	MIG_EACH(&context->mrs, mr, struct mig_mr, link) {
		int error = list_keys(context, mr);

		if (error) {
			mig_numbers_free(&context->vlkeys);
			mig_numbers_free(&context->vrkeys);
			return error;
		}
	}
	context->keys_listed = 1;
	return 0;
}

/* Whether a new physical key is another region's virtual one, after a move. Must hold the context's lock. */
static int collides(const struct mig_context *context, const struct ibv_mr *real)
{
	return mig_numbers_find(&context->vlkeys, real->lkey) || mig_numbers_find(&context->vrkeys, real->rkey);
}

/*
 * A key that collides would need another virtual number, of which the peers would have to be told before the
 * application is. It is simpler to ask the device for another one, while the first still occupies its number.
 */
static struct ibv_mr *ask_until_unique(struct mig_context *context, enum way way, struct ibv_pd *pd, void *addr,
				       size_t length, uint64_t iova, unsigned int access)
{
	struct mig_refused refused = { 0 };
	struct ibv_mr *real = NULL, *other;
	int again = 1, error = 0;

	if (context->translate) {
		mig_lock(&context->lock);
		error = list_all_keys(context);
		mig_unlock(&context->lock);
	}
	while (again && !error) {
		real = ask(way, pd, addr, length, iova, access);
		if (!real)
			error = errno;
		if (!real || !context->translate)
			break;
		mig_lock(&context->lock);
		again = collides(context, real);
		mig_unlock(&context->lock);
		if (again && (error = mig_refuse(&refused, real)))
			mig_real()->ibv_dereg_mr(real);
	}
	while ((other = mig_refused_next(&refused)))
		mig_real()->ibv_dereg_mr(other);
	if (error)
		errno = error;
	return error ? NULL : real;
}

static struct ibv_mr *register_memory(enum way way, struct ibv_pd *ibv, void *addr, size_t length, uint64_t iova,
				      unsigned int access)
{
	struct mig_pd *pd = mig_pd(ibv);

	if (!pd)
		return ask(way, ibv, addr, length, iova, access);

	MIG_VERB;
	struct mig_context *context = mig_context(ibv->context);
	struct mig_mr *mr = calloc(1, sizeof(*mr));
	if (!mr) {
		errno = ENOMEM;
		return NULL;
	}
	mr->real = ask_until_unique(context, way, pd->real, addr, length, iova, access);
	if (!mr->real) {
		free(mr);
		return NULL;
	}
	if (access & IBV_ACCESS_ON_DEMAND)
		mig_cannot_migrate("an on-demand paging memory region");
	mr->ibv = *mr->real;
	mr->ibv.context = ibv->context;
	mr->ibv.pd = ibv;
	mr->iova = iova;
	mr->access = access;
	mig_lock(&context->lock);
	int error = context->keys_listed ? list_keys(context, mr) : 0;
	if (!error)
		mig_list_add(&context->mrs, &mr->link);
	mig_unlock(&context->lock);
	if (!error)
		return &mr->ibv;
	mig_real()->ibv_dereg_mr(mr->real);
	free(mr);
	errno = error;
	return NULL;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
	return register_memory(WAY_PLAIN, pd, addr, length, (uintptr_t)addr, (unsigned int)access);
}

struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, int access)
{
	return register_memory(WAY_IOVA, pd, addr, length, iova, (unsigned int)access);
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, unsigned int access)
{
	return register_memory(WAY_IOVA2, pd, addr, length, iova, access);
}

int ibv_dereg_mr(struct ibv_mr *ibv)
{
	struct mig_mr *mr = mig_mr(ibv);

	if (!mr)
		return mig_real()->ibv_dereg_mr(ibv);
	MIG_VERB;
	struct mig_context *context = mig_context(ibv->context);
	int error = mig_real()->ibv_dereg_mr(mr->real);
	if (error)
		return error;
	mig_lock(&context->lock);
	mig_list_remove(&mr->link);
	if (context->keys_listed)
		unlist_keys(context, mr);
	if (mig_keymap_get(context->lkeys, mr->ibv.lkey) != mr->ibv.lkey)
		mig_keymap_set(context->lkeys, mr->ibv.lkey, mr->ibv.lkey);
	mig_unlock(&context->lock);
	free(mr);
	return 0;
}

int ibv_rereg_mr(struct ibv_mr *ibv, int flags, struct ibv_pd *pd, void *addr, size_t length, int access)
{
	struct mig_mr *mr = mig_mr(ibv);

	if (!mr)
		return mig_real()->ibv_rereg_mr(ibv, flags, mig_real_pd(pd), addr, length, access);
	MIG_VERB;
	struct mig_context *context = mig_context(ibv->context);
	if (context->translate)
		mig_cannot_migrate("a memory region that was registered anew after a move");
	int result = mig_real()->ibv_rereg_mr(mr->real, flags, mig_real_pd(pd), addr, length, access);
	if (result && result != IBV_REREG_MR_ERR_DO_FORK_OLD)
		return result;
	if (flags & IBV_REREG_MR_CHANGE_PD)
		ibv->pd = pd;
	if (flags & IBV_REREG_MR_CHANGE_TRANSLATION)
		mr->iova = (uintptr_t)addr;
	if (flags & IBV_REREG_MR_CHANGE_ACCESS)
		mr->access = (unsigned int)access;
	ibv->addr = mr->real->addr;
	ibv->length = mr->real->length;
	ibv->handle = mr->real->handle;
	mig_lock(&context->lock);
	if (context->keys_listed)
		unlist_keys(context, mr);
	ibv->lkey = mr->real->lkey;
	ibv->rkey = mr->real->rkey;
	/* If there is no memory for the list, the next who needs it makes it anew. */
	if (context->keys_listed && list_keys(context, mr)) {
		mig_numbers_free(&context->vlkeys);
		mig_numbers_free(&context->vrkeys);
		context->keys_listed = 0;
	}
	mig_unlock(&context->lock);
	return result;
}

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

struct ibv_dm *ibv_import_dm(struct ibv_context *ibv, uint32_t handle)
{
	struct mig_context *context = mig_context(ibv);

	if (!mig_real()->ibv_import_dm) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	if (!context)
		return mig_real()->ibv_import_dm(ibv, handle);
	MIG_VERB;
	mig_cannot_migrate("imported device memory");
	return mig_real()->ibv_import_dm(context->real, handle);
}

struct ibv_dmah *ibv_alloc_dmah(struct ibv_context *ibv, struct ibv_dmah_init_attr *attr)
{
	struct mig_context *context = mig_context(ibv);

	if (!mig_real()->ibv_alloc_dmah) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	if (!context)
		return mig_real()->ibv_alloc_dmah(ibv, attr);
	MIG_VERB;
	mig_cannot_migrate("a DMA handle");
	return mig_real()->ibv_alloc_dmah(context->real, attr);
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
