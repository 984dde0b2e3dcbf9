/* Devices whose doorbell is a system call: sends of a process that was restored from a checkpoint, and of one that was stopped. */
#ifndef MIGRRDMA_DOORBELL_H
#define MIGRRDMA_DOORBELL_H

#include <infiniband/verbs.h>

/*
 * The real ibv_post_send() of `real`, and the doorbell where the kernel refuses the caller that one.
 * Stands in mig_qp.post_send in a process that was restored; takes a real QP, returns an errno.
 */
int mig_post_and_ring(struct ibv_qp *real, struct ibv_send_wr *wr, struct ibv_send_wr **bad);

/* Have the device look into its send queue, although nothing was posted; of devices that look by themselves nothing. */
void mig_ring(const struct ibv_qp *real);

/* Likewise, the real ibv_bind_mw(). */
int mig_bind_and_ring(struct ibv_qp *real, struct ibv_mw *mw, struct ibv_mw_bind *bind);

/* Likewise, the real ibv_wr_complete(). */
int mig_complete_and_ring(struct ibv_qp_ex *real);

#endif
