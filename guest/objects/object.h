/* What the files about single kinds of objects offer to each other and to the control thread. */
#ifndef MIGRRDMA_OBJECT_H
#define MIGRRDMA_OBJECT_H

#include "shadow/mig.h"

/* A real device by its name, opened; NULL and errno. */
struct ibv_context *mig_open_by_name(const char *name);

/* The application's operations table; the extended ones only where the real context has them. */
void mig_fill_operations(struct mig_context *context);

/* A shadow for a protection domain of whatever kind; takes the real one over. */
struct ibv_pd *mig_pd_wrap(struct mig_context *context, struct ibv_pd *real);

/* Numbers of the application's port and GID table on the device of the moment, or of the next one. */
const struct mig_gid_map *mig_gid_find(const struct mig_context *context, uint32_t port, uint32_t index);

/* recv.c, send.c: what the context's operations point at. */
int mig_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
int mig_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);
int mig_req_notify_cq(struct ibv_cq *cq, int solicited_only);

/*
 * Sends what was kept, as far as there is room; what is done with is put on *done, to be freed when no lock is held.
 * Must hold no lock after the context's.
 */
void mig_send_flush(struct mig_qp *qp, struct mig_send **done);
void mig_send_free(struct mig_send *list);
void mig_send_gate(struct mig_qp *qp, uint32_t set, uint32_t clear);

/*
 * Member by member: applications write these three just before they post, and one wide load of what is still in the
 * processor's store queue in parts would wait for all of it.
 */
static inline void mig_copy_sge(struct ibv_sge *to, const struct ibv_sge *from)
{
	to->addr = __atomic_load_n(&from->addr, __ATOMIC_RELAXED);
	to->length = __atomic_load_n(&from->length, __ATOMIC_RELAXED);
	to->lkey = __atomic_load_n(&from->lkey, __ATOMIC_RELAXED);
}

/* quiesce.c: keeps what is sent from now on. Sections that have begun may still post. */
void mig_quiesce_one(struct mig_qp *qp);

int mig_recv_init(struct mig_qp *qp);
void mig_recv_clear(struct mig_qp *qp);

/*
 * Receives and the exchange of queues. Closing ends the fast way, for good after the next grace period; then parking
 * leaves everything to the ring; opening ends both.
 */
void mig_recv_close(struct mig_qp *qp);
void mig_recv_park(struct mig_qp *qp);

/* Posts what the ring holds from *from on to that QP, and moves *from; 0 or an errno. Must hold recv_lock. */
int mig_recv_repost(struct mig_qp *qp, struct ibv_qp *real, const struct mig_keymap *lkeys, uint32_t *from);

/* Posts what was recorded while parked to the real queue and opens it, in one step. */
int mig_recv_open(struct mig_qp *qp);

/*
 * Takes what the real queue holds into the ring; also of a parked process when it is the last time. Must hold no
 * lock; the world may be stopped. 0 or an errno.
 */
int mig_cq_collect(struct mig_cq *cq, int last);
/* cq_ex.c: NULL and errno 0 for one that we cannot shadow. */
struct ibv_cq_ex *mig_create_cq_ex(struct mig_context *context, struct ibv_cq_init_attr_ex *attr);
void mig_cq_add(struct mig_context *context, struct mig_cq *cq);
/* Another real CQ like this one, on that context. */
struct ibv_cq *mig_cq_make(struct mig_cq *cq, struct ibv_context *real, struct ibv_comp_channel *channel);
/* The first one; sets cq->spare. */
struct ibv_cq *mig_cq_make_sized(struct mig_cq *cq, struct ibv_context *real, struct ibv_comp_channel *channel,
				 int entries);
/* A completion that we owe the application. */
int mig_cq_push(struct mig_cq *cq, const struct ibv_wc *wc);
void mig_cq_gate(struct mig_cq *cq, int change);
/* Events of a channel that were delivered and not read: owed from now on. */
void mig_channel_take_events(struct mig_channel *channel);
/* Likewise the asynchronous ones; 0 or an errno. An object that ends takes those with it that are about it. */
int mig_context_take_events(struct mig_context *context);
void mig_context_forget_events(struct mig_context *context, const void *object);
void mig_channel_owe(struct mig_channel *channel, struct mig_cq *cq);

/*
 * Every RC QP lets remote writes in, beside what the application asked for: the marker that ends a drain is a write
 * of no bytes, and a QP that stays in RTR (a pure receiver) cannot be changed later. Memory is still protected by
 * the rights of its regions.
 */
static const unsigned int mig_extra_access = IBV_ACCESS_REMOTE_WRITE;

/* Sets which QP a physical number means; page memory must be there. */
int mig_qpn_reserve(struct mig_context *context, uint32_t pqpn);
void mig_qpn_set(struct mig_context *context, uint32_t pqpn, struct mig_qp *qp);

/* A real QP like this one, on other real objects; NULL and errno. *extra: slots beyond the application's. */
struct ibv_qp *mig_qp_make(struct mig_qp *qp, struct ibv_pd *pd, struct ibv_cq *send_cq, struct ibv_cq *recv_cq);
void mig_qp_set_operations(struct mig_qp *qp);

#endif
