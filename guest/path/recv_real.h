/* Receives to a real queue, in its numbers. */
#ifndef MIGRRDMA_PATH_RECV_REAL_H
#define MIGRRDMA_PATH_RECV_REAL_H

#include "shadow/qp.h"

struct mig_keymap;

/* As ibv_post_recv, on `real`, with those keys; *bad must not be NULL. In a section or under recv_lock. */
int mig_recv_translated(struct mig_qp *qp, struct ibv_qp *real, const struct mig_keymap *lkeys, struct ibv_recv_wr *wr,
			struct ibv_recv_wr **bad);

#endif
