/* Posting sends by ibv_wr_*. */
#ifndef MIGRRDMA_PATH_BUILD_H
#define MIGRRDMA_PATH_BUILD_H

#include "shadow/qp.h"

/* What of ibv_wr_* a QP may have that is shadowed. */
#define MIG_BUILD_OPERATIONS                                                                                \
	(IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM | IBV_QP_EX_WITH_SEND |             \
	 IBV_QP_EX_WITH_SEND_WITH_IMM | IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP |      \
	 IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD | IBV_QP_EX_WITH_LOCAL_INV | IBV_QP_EX_WITH_BIND_MW |          \
	 IBV_QP_EX_WITH_SEND_WITH_INV)

/* Fills the table of a QP that has a build. */
void mig_build_offer(struct mig_qp *qp);

#endif
