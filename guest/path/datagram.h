/*
 * Datagrams once something has moved: sent to where what the application names is now, and received as if from where it was. All
 * of it in sections.
 */
#ifndef MIGRRDMA_PATH_DATAGRAM_H
#define MIGRRDMA_PATH_DATAGRAM_H

#include "shadow/qp.h"

/* To whom a request goes. */
void mig_datagram_translate(struct ibv_send_wr *wr);

/*
 * One has been received into this memory, which is the application's and not shown to it yet: the completion, and the header in
 * the memory, say what the application would read had nothing moved.
 */
void mig_datagram_received(const struct mig_context *context, struct ibv_wc *wc, const struct ibv_sge *sges, uint32_t num_sge);

#endif
