/* Sends to the real queue, in the numbers of the moment. */
#ifndef MIGRRDMA_PATH_SEND_REAL_H
#define MIGRRDMA_PATH_SEND_REAL_H

#include "shadow/qp.h"

/* The keys of one work request, but for its scatter list's, in the numbers of the moment. In a section or under send_lock. */
void mig_send_translate_keys(const struct mig_qp *qp, struct ibv_send_wr *wr);

/* As ibv_post_send; `gate` says whether numbers differ. In a section or under send_lock. */
int mig_send_real(struct mig_qp *qp, uint32_t gate, struct ibv_send_wr *wr, struct ibv_send_wr **bad);

/* Likewise of requests that were kept, and noted what they had to when they were. */
int mig_send_kept(struct mig_qp *qp, uint32_t gate, struct ibv_send_wr *wr, struct ibv_send_wr **bad);

#endif
