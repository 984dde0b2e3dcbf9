/* The sends that the application posts while a QP is quiesced, from the gate that keeps them to their flush. */
#ifndef MIGRRDMA_PATH_KEPT_H
#define MIGRRDMA_PATH_KEPT_H

#include "shadow/mw.h"
#include "shadow/qp.h"

/* Keeps a list; 0 or an errno as ibv_post_send, or -1 if the gate has been opened meanwhile. Must hold no lock. */
int mig_send_keep(struct mig_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);

/* Keeps all of a list that is allocated, which `end` is the end of, or nothing; 0, an errno, or -1 likewise. */
int mig_send_keep_all(struct mig_qp *qp, struct mig_send *first, struct mig_send **end, uint32_t count);

/*
 * Sends what was kept, as far as there is room; what is done with is put on *done, to be freed when no lock is held.
 * Must hold no lock after the context's.
 */
void mig_send_flush(struct mig_qp *qp, struct mig_send **done);
void mig_send_free(struct mig_send *list);

/* Gives up what was kept, without a completion: as a reset does. It is put on *done. Must hold no lock. */
void mig_send_drop(struct mig_qp *qp, struct mig_send **done);

/*
 * The device refuses the first of what was kept, and the QP has been put into the error state: in the place of the refused
 * one a request that any device takes, and flushes in its turn; the others follow it. Must hold no lock.
 */
void mig_send_fail(struct mig_qp *qp);

/*
 * In the place of what is kept about a window that ends comes a request that does nothing, so that it completes. Whether
 * something is kept about a window, or binds one to a region. Must not hold send_lock.
 */
int mig_send_is_about(struct mig_qp *qp, const struct mig_mw *mw);
void mig_send_forget_window(struct mig_qp *qp, const struct mig_mw *mw);
int mig_send_binds_to(struct mig_qp *qp, const struct ibv_mr *mr);

/* Sets and clears bits of enum mig_gate; what they were. Must not hold send_lock. */
uint32_t mig_send_gate(struct mig_qp *qp, uint32_t set, uint32_t clear);

#endif
