/* What travels between hosts: wire.c. */
#ifndef RNIC_WIRE_H
#define RNIC_WIRE_H

#include "qp.h"

#define RNIC_PSN_MASK 0xffffffu

enum rnic_packet_kind { RNIC_REQUEST, RNIC_ACK, RNIC_READ_DATA, RNIC_ATOMIC_VALUE, RNIC_DEPARTED };
enum rnic_packet_flags {
	RNIC_FIRST = 1,
	RNIC_LAST = 2,
	RNIC_SOLICITED = 4,
};

enum rnic_syndrome {
	RNIC_ACKNOWLEDGED,
	RNIC_NOT_READY, /* no receive: try again in a while */
	RNIC_BAD_SEQUENCE,
	RNIC_INVALID_REQUEST,
	RNIC_ACCESS_ERROR,
	RNIC_OPERATIONAL_ERROR,
};

struct rnic_packet {
	struct rnic_event event;
	struct rnic_device *from;
	uint8_t kind, flags, opcode, syndrome, timer, transport; /* transport: enum ibv_qp_type of the sender */
	uint8_t sgid[16], dgid[16];
	uint32_t qpn, source_qpn, psn, qkey, srqn, imm, rkey;
	uint64_t address, compare_add, swap;
	uint32_t length; /* of the whole message */
	uint32_t bytes;	 /* of it in here */
	uint32_t counter;
	uint32_t flow_label;
	uint8_t traffic_class, hop_limit;
	const unsigned char *data;
};

/* Whether the wire takes another piece now; if not, the QP waits for it and runs again then. */
bool rnic_wire_ready(struct rnic_qp *qp);
void rnic_wire_free(struct rnic_fabric *fabric, struct rnic_event *event);
/* Sends. `packet` and its data are the caller's again at return. When it leaves: the time. */
uint64_t rnic_transmit(struct rnic_device *from, const struct rnic_packet *packet);
/* What is on its way no longer counts for a device that ends. */
void rnic_packet_forget(struct rnic_event *event, const struct rnic_device *device);
#endif
