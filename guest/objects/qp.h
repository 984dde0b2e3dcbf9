/* Queue pairs: made, changed, looked at, exchanged, ended. */
#ifndef MIGRRDMA_OBJECTS_QP_H
#define MIGRRDMA_OBJECTS_QP_H

#include "shadow/xrcd.h"

/*
 * Every RC QP lets remote writes in, beside what the application asked for: the marker that ends a drain is a write
 * of no bytes, and a QP that stays in RTR (a pure receiver) cannot be changed later. Memory is still protected by
 * the rights of its regions.
 */
static const unsigned int mig_extra_access = IBV_ACCESS_REMOTE_WRITE;

/* --- qp.c --- */

/* Whether one that is asked for like that can be shadowed: it has what is known of ibv_wr_*, and nothing else. */
int mig_qp_is_built_with(const struct ibv_qp_init_attr_ex *attr);
struct ibv_qp *mig_qp_create_to_build(struct ibv_qp_init_attr_ex *attr);

/* Likewise, of a target of XRC. */
int mig_qp_is_target(const struct ibv_qp_init_attr_ex *attr);
struct ibv_qp *mig_qp_create_target(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr);

/* --- qp_real.c --- */

/* A real QP, in a protection domain or, of a target, in an XRC domain, with ibv_wr_* for these operations if there are any, with one place more in the send queue, for the marker, or without, if the device has no more: *extra. */
struct ibv_qp *mig_qp_make_with_spare(struct ibv_pd *pd, struct ibv_xrcd *xrcd, struct ibv_qp_init_attr *init, uint64_t operations,
				      uint32_t *extra);

/* A real QP like this one's, beside it or, with the verb gate closed, made of the next objects; NULL and errno. */
struct ibv_qp *mig_qp_make_beside(struct mig_qp *qp);
struct ibv_qp *mig_qp_make_next(struct mig_qp *qp);

/* Ends what its markers need of the real device, if there is something. */
void mig_qp_end_marker(struct mig_qp *qp);

/* Whether the data path translates numbers, after their tables have changed. The QP may be at work. */
void mig_qp_set_translation(struct mig_qp *qp);

/* Likewise, and which functions it calls, after the real QP has changed. Nobody posts to it. */
void mig_qp_set_operations(struct mig_qp *qp);

/* Its markers will not be seen any more. Must not hold its CQs' locks. */
void mig_qp_drop_marker(struct mig_qp *qp);

/* --- qp_change.c --- */

/* After a QP has got another state, or RESET again: what of it waits, and its part in a move under way. */
void mig_qp_state_changed(struct mig_qp *qp, enum ibv_qp_state from);

/*
 * Takes the completions of one that was reset or ended to where they are its: out of the device's queues, while it is still
 * known whose they are; and away altogether, if the device does that. Must hold no lock.
 */
void mig_qp_collect(struct mig_qp *qp);

/* --- qp_stopped.c --- */

/* Before the application puts it into SQD: what it sends from then on is kept. Must hold no lock. */
void mig_qp_stop(struct mig_qp *qp);

/* It has left SQD, or did not get there. */
void mig_qp_go_on(struct mig_qp *qp);

/*
 * Takes the real one out of SQD for a drain, if it is in it; 0, or an errno: it is still at work on what it had begun. And puts
 * it back, unless another one has taken its place.
 */
int mig_qp_resume_stopped(struct mig_qp *qp);
void mig_qp_stop_resumed(struct mig_qp *qp);

/* --- qp_state.c --- */

/* Learns from the device whether it has failed, with or without a word. The verb gate must be closed. */
void mig_qp_look(struct mig_qp *qp);

/* --- qp_where.c --- */

/* Whom a QP is about to be connected to, as the application has it and as it is. */
struct mig_other_end {
	const struct ibv_qp *asked_by; /* the real one that it was then; NULL: nobody was asked */
	uint32_t qpn;
	union ibv_gid gid;
	uint64_t peer;
	struct mig_keymap *rkeys;
};

/*
 * Learns where the other end is that these attributes name, if they do; 0, or an errno: it cannot be connected to. Must not be
 * in a verb.
 */
int mig_qp_find_other_end(struct mig_qp *qp, const struct ibv_qp_attr *attr, int mask, struct mig_other_end *end);

/* What the application is told of it and what is sent to it goes by what was learnt. It was brought to RTR, and sends nothing yet. */
void mig_qp_face(struct mig_qp *qp, struct mig_other_end *end);

/* --- qp_next.c --- */

/* Brings the next one to INIT, as the application has brought this one; 0 or an errno. */
int mig_qp_to_init(struct mig_context *context, struct mig_qp *qp);

/* Ends the next one, if there is one: nothing was posted to it, and no application has heard of it. */
void mig_qp_give_up(struct mig_context *context, struct mig_qp *qp);

/* Puts the next one in the place of the real one, which is left in `next`, and its peer's keys in the place of theirs. */
void mig_qp_exchange(struct mig_context *context, struct mig_qp *qp);

#endif
