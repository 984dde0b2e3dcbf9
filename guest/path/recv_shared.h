/* Posting receives to shared queues, and remembering them until a message has used them. */
#ifndef MIGRRDMA_PATH_RECV_SHARED_H
#define MIGRRDMA_PATH_RECV_SHARED_H

#include "shadow/srq.h"

struct mig_keymap;

/* What the context's operations point at. */
int mig_post_srq_recv(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);

/* As many slots more as a queue of that depth takes at first; 0 or ENOMEM. Must hold no lock after the gate. */
int mig_slots_add(struct mig_srq *srq, uint32_t depth);

/* A queue that has ended, or was not made after all: nobody can have a completion of it any more. Must hold no lock. */
void mig_slots_free(struct mig_srq *srq);

/* How many are posted and not known to be completed. A snapshot, like that of a QP. */
uint32_t mig_slots_taken(struct mig_srq *srq);

/* As mig_recv_close, mig_recv_park and mig_recv_open. */
void mig_srq_close(struct mig_srq *srq);
void mig_srq_park(struct mig_srq *srq);
int mig_srq_open(struct mig_srq *srq);

/* Posts what was posted after *from to that queue, in its order, and moves *from; 0 or an errno. Must hold the lock. */
int mig_srq_repost(struct mig_srq *srq, struct ibv_srq *real, const struct mig_keymap *lkeys, uint64_t *from);

#endif
