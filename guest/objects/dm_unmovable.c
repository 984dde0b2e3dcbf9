/* Device memory that came from elsewhere, and DMA handles: passed on, and reasons against a move. */
#include <errno.h>

#include "base/verb_gate.h"
#include "objects/offer.h"
#include "real/export.h"

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
	struct ibv_dm *made = mig_real()->ibv_import_dm(context->real, handle);
	return mig_marked(ibv, made, "imported device memory");
}

void ibv_unimport_dm(struct ibv_dm *dm)
{
	struct mig_mark *marks = mig_marks_take(dm);

	if (mig_real()->ibv_unimport_dm)
		mig_real()->ibv_unimport_dm(dm);
	mig_marks_settle(marks, 0);
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
	struct ibv_dmah *made = mig_real()->ibv_alloc_dmah(context->real, attr);
	return mig_marked(ibv, made, "a DMA handle");
}

int ibv_dealloc_dmah(struct ibv_dmah *object)
{
	if (!mig_real()->ibv_dealloc_dmah)
		return EOPNOTSUPP;
	struct mig_mark *marks = mig_marks_take(object);
	int error = mig_real()->ibv_dealloc_dmah(object);

	mig_marks_settle(marks, error);
	return error;
}
