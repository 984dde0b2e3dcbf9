/* Memory regions. */
#ifndef MIGRRDMA_SHADOW_MR_H
#define MIGRRDMA_SHADOW_MR_H

#include "shadow/context.h"

struct mig_dm;

struct mig_mr {
	struct ibv_mr ibv;
	struct ibv_mr *real, *next;
	uint64_t iova;
	unsigned int access;
	struct mig_dm *dm; /* of device memory, where iova is the offset; NULL: of the process's */
	int is_null; /* reads as zeros, and takes what is written to it nowhere */
	int has_differed; /* its rkey was another one to the device at some time, and peers may have it in their maps */
	struct mig_link link;
};

MIG_SHADOW(mr, ibv_mr, mig_mr)

#endif
