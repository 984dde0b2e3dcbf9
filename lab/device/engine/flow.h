/* Requests and answers: request.c, complete.c, respond.c, execute.c, reply.c, datagram.c. */
#ifndef RNIC_FLOW_H
#define RNIC_FLOW_H

#include "wire.h"

/* Unacknowledged bytes of one QP on the wire; far below half the space of PSNs at the smallest MTU. */
#define RNIC_WINDOW (16u << 20)
#define RNIC_GRH_BYTES 40

/* One piece of work; false: there was none to do now. */
bool rnic_send_piece(struct rnic_qp *qp);
bool rnic_reply_piece(struct rnic_qp *qp);

void rnic_go_back(struct rnic_qp *qp, uint32_t psn);
void rnic_retire(struct rnic_qp *qp);
/* Something is unacknowledged: the retry timer runs from now on. */
void rnic_await(struct rnic_qp *qp);
/* Nobody was there for a request. */
void rnic_unheard(struct rnic_qp *qp, const struct rnic_packet *packet);
void rnic_acknowledged(struct rnic_qp *qp, const struct rnic_packet *packet);
void rnic_read_arrived(struct rnic_qp *qp, const struct rnic_packet *packet);
void rnic_atomic_arrived(struct rnic_qp *qp, const struct rnic_packet *packet);
void rnic_fail_request(struct rnic_qp *qp, uint32_t counter, enum ibv_wc_status status);
/* The request whose span of PSNs holds psn and that is not done; `started`: none. */
uint32_t rnic_sent_find(struct rnic_qp *qp, uint32_t psn);
/* Something was posted here: whoever waits for a receive tries again. */
void rnic_feed(struct rnic_qp *qp);
/* The receiver said that it was not ready, with its timer's code. */
void rnic_wait_for_receive(struct rnic_qp *qp, uint8_t code);
void rnic_retry_fired(struct rnic_fabric *fabric, struct rnic_event *event);
void rnic_wait_fired(struct rnic_fabric *fabric, struct rnic_event *event);
enum ibv_wc_status rnic_load(struct rnic_qp *qp, uint32_t counter, struct rnic_request *request);
enum ibv_wc_opcode rnic_wc_opcode(uint32_t opcode);

/* The PSN span of a piece of so many bytes. */
uint32_t rnic_packets_of(const struct rnic_qp *qp, uint32_t bytes);
static inline uint32_t rnic_psn_add(uint32_t psn, uint32_t by) { return (psn + by) & RNIC_PSN_MASK; }
static inline uint32_t rnic_psn_minus(uint32_t psn, uint32_t other) { return (psn - other) & RNIC_PSN_MASK; }
/* Whether psn is before other in the half of the circle that counts as the past. */
static inline bool rnic_psn_before(uint32_t psn, uint32_t other)
{
	return rnic_psn_minus(psn, other) > RNIC_PSN_MASK / 2;
}

void rnic_request_arrived(struct rnic_qp *qp, const struct rnic_packet *packet);
void rnic_datagram_arrived(struct rnic_qp *qp, const struct rnic_packet *packet);
void rnic_multicast(struct rnic_fabric *fabric, const struct rnic_packet *packet);
void rnic_leave_groups(struct rnic_qp *qp);

/* What a request needs of the QP's rights: an ibv_access_flags, or 0. */
unsigned int rnic_right_of(uint32_t opcode);
/* A request that cannot be executed ends a reliable connection; of an unreliable one the message is dropped. */
void rnic_refuse(struct rnic_qp *qp, const struct rnic_packet *packet, enum rnic_syndrome syndrome,
		 enum ibv_wc_status receive_status);
void rnic_execute(struct rnic_qp *qp, const struct rnic_packet *packet);
void rnic_execute_read(struct rnic_qp *qp, const struct rnic_packet *packet);
void rnic_answer_atomic(struct rnic_qp *qp, uint32_t psn, uint64_t value);

/* Queues a reply behind the ones that have not left yet. */
struct rnic_reply *rnic_reply_new(struct rnic_qp *qp);
void rnic_acknowledge(struct rnic_qp *qp, uint32_t psn, enum rnic_syndrome syndrome);
/* The shared queue that the arriving message takes its receive from, or NULL: the QP's own. */
struct rnic_srq *rnic_message_srq(const struct rnic_qp *qp, uint32_t srqn);
/* Whose regions its keys must belong to; NULL: nobody's. */
struct rnic_pd *rnic_message_pd(const struct rnic_qp *qp, uint32_t srqn);
/* Takes a receive for the message that is arriving: its own queue's or its shared queue's; false: there is none. */
bool rnic_take_receive(struct rnic_qp *qp);
void rnic_receive_done(struct rnic_qp *qp, const struct rnic_packet *packet, enum ibv_wc_status status, uint32_t bytes,
		       unsigned int flags);
#endif
