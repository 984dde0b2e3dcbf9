/* Requests about memory windows, as they are posted and as they complete. */
#ifndef MIGRRDMA_PATH_WINDOW_H
#define MIGRRDMA_PATH_WINDOW_H

#include "shadow/mw.h"
#include "shadow/qp.h"

/*
 * In a copy of a request that binds: which rkey the window has now, and the device is to be told of. The application may change it
 * as soon as its call has returned. Stands where such a request has no use for it; translated as below.
 */
void mig_window_note(struct ibv_send_wr *copy);

/* A request that binds, and has been noted, or invalidates: in the objects and numbers of the moment. */
void mig_window_translate(const struct mig_context *context, struct ibv_send_wr *wr);

/* Windows of type 1 are bound by a call of their own; 0 or an errno. */
int mig_window_is_of_type_1(const struct ibv_send_wr *wr);
int mig_window_bind_type_1(struct mig_qp *qp, const struct ibv_send_wr *wr);

/* A request of the application's has been taken by the device. */
void mig_window_posted(struct mig_qp *qp, const struct ibv_send_wr *wr);

/* A receive has completed: it may say that the peer has invalidated a window, by the device's number. */
void mig_window_received(const struct mig_context *context, const struct mig_qp *qp, struct ibv_wc *wc);

#endif
