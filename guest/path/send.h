/* Posting sends. */
#ifndef MIGRRDMA_PATH_SEND_H
#define MIGRRDMA_PATH_SEND_H

#include "shadow/qp.h"

/* What the context's operations point at. */
int mig_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);

#endif
