/* Posting sends, and keeping those of a QP that is quiesced. */
#ifndef MIGRRDMA_PATH_SEND_H
#define MIGRRDMA_PATH_SEND_H

#include "shadow/qp.h"

/* What the context's operations point at. */
int mig_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);

/*
 * Sends what was kept, as far as there is room; what is done with is put on *done, to be freed when no lock is held.
 * Must hold no lock after the context's.
 */
void mig_send_flush(struct mig_qp *qp, struct mig_send **done);
void mig_send_free(struct mig_send *list);

/* Sets and clears bits of enum mig_gate. Must not hold send_lock. */
void mig_send_gate(struct mig_qp *qp, uint32_t set, uint32_t clear);

#endif
