/*
 * What a library asks of its device: one record a call, filled by the library, answered in place by whoever serves it.
 *
 * Every record is of one size and holds nothing that is a pointer to the other side: a queue's memory is named by a
 * reference (see link/link.h), an object by the handle that the engine gave it. Structures of <infiniband/verbs.h> appear
 * where both sides are built from one tree; RNIC_WIRE_VERSION tells when they are not.
 */
#ifndef RNIC_CALL_H
#define RNIC_CALL_H

#include <infiniband/verbs.h>
#include <stdint.h>

#include "../engine/ring.h"

#define RNIC_WIRE_VERSION 1

/* X(name, text): text is what rnic_fault knows the call by, the verb's name without "ibv_". */
#define RNIC_CALLS(X)                                                                                      \
	X(CALL_QUERY_DEVICE, "query_device")                                                               \
	X(CALL_QUERY_PORT, "query_port")                                                                   \
	X(CALL_QUERY_GID, "query_gid")                                                                     \
	X(CALL_ALLOC_PD, "alloc_pd")                                                                       \
	X(CALL_DEALLOC_PD, "dealloc_pd")                                                                   \
	X(CALL_OPEN_XRCD, "open_xrcd")                                                                     \
	X(CALL_CLOSE_XRCD, "close_xrcd")                                                                   \
	X(CALL_REG_MR, "reg_mr")                                                                           \
	X(CALL_REREG_MR, "rereg_mr")                                                                       \
	X(CALL_DEREG_MR, "dereg_mr")                                                                       \
	X(CALL_ALLOC_MW, "alloc_mw")                                                                       \
	X(CALL_DEALLOC_MW, "dealloc_mw")                                                                   \
	X(CALL_CREATE_AH, "create_ah")                                                                     \
	X(CALL_DESTROY_AH, "destroy_ah")                                                                   \
	X(CALL_CREATE_CHANNEL, "create_comp_channel")                                                      \
	X(CALL_DESTROY_CHANNEL, "destroy_comp_channel")                                                    \
	X(CALL_CREATE_CQ, "create_cq")                                                                     \
	X(CALL_RESIZE_CQ, "resize_cq")                                                                     \
	X(CALL_DESTROY_CQ, "destroy_cq")                                                                   \
	X(CALL_CREATE_SRQ, "create_srq")                                                                   \
	X(CALL_MODIFY_SRQ, "modify_srq")                                                                   \
	X(CALL_QUERY_SRQ, "query_srq")                                                                     \
	X(CALL_DESTROY_SRQ, "destroy_srq")                                                                 \
	X(CALL_QP_CAPS, NULL) /* the first half of create_qp */                                            \
	X(CALL_CREATE_QP, "create_qp")                                                                     \
	X(CALL_OPEN_QP, "open_qp")                                                                         \
	X(CALL_MODIFY_QP, "modify_qp")                                                                     \
	X(CALL_QUERY_QP, "query_qp")                                                                       \
	X(CALL_DESTROY_QP, "destroy_qp")                                                                   \
	X(CALL_ATTACH, "attach_mcast")                                                                     \
	X(CALL_DETACH, "detach_mcast")                                                                     \
	X(CALL_DOORBELL, NULL)	   /* of a queue whose handle has no bit in the area; number: 1 for an SRQ */ \
	X(CALL_EVENTS, NULL)	   /* put into their queues what had no room there */                       \
	X(CALL_DATA_PATH, NULL)	   /* may this call of the data path succeed? `text` names it */            \
	X(CALL_AREA, NULL)	   /* another piece of memory that both sides see */                        \
	X(CALL_CLOSE, "close_device")

#define RNIC_CALL_NUMBER(name, text) name,
enum rnic_call_name { RNIC_CALLS(RNIC_CALL_NUMBER) RNIC_CALL_COUNT };

/* The memory of a queue, both sides see it: a pointer in one process, extent and offset between two. */
typedef uint64_t rnic_reference;

struct rnic_call {
	uint32_t name;	/* enum rnic_call_name */
	int32_t error;	/* out: 0 or a positive errno */
	uint32_t handle; /* in: of the object; out: of the one that was made */
	uint32_t number; /* out: QPN, SRQN */
	union {
		struct ibv_device_attr device_attr;
		struct ibv_port_attr port_attr;
		struct {
			uint8_t gid[16];
			int32_t index, type;
			uint32_t port, ifindex;
		} gid;
		struct {
			uint64_t name;
			int32_t flags;
		} xrcd;
		struct {
			uint64_t address, length, iova;
			uint32_t pd, access;
			int32_t flags;
			uint32_t lkey, rkey;
		} mr;
		struct {
			uint32_t pd, type, rkey;
		} mw;
		struct {
			struct rnic_route route;
			uint32_t pd;
		} ah;
		struct {
			rnic_reference queue; /* of struct rnic_events */
			int32_t fd;	      /* its eventfd, a number of the caller's */
		} channel;
		struct {
			rnic_reference ring;
			uint64_t cookie;
			uint32_t channel; /* RNIC_NONE: none */
		} cq;
		struct {
			rnic_reference ring; /* 0: as it is */
			uint64_t cookie;
			uint32_t pd, type, xrcd, cq, max_wr, max_sge, limit, sets_limit;
		} srq;
		struct ibv_srq_attr srq_attr;
		struct {
			struct ibv_qp_cap cap; /* in: wanted; out: granted */
			uint32_t type, sq_stride, rq_stride;
		} caps;
		struct {
			struct ibv_qp_cap cap;
			rnic_reference sq, rq; /* 0: none */
			uint64_t cookie;
			uint32_t type, pd, send_cq, recv_cq, srq, xrcd, sq_sig_all;
		} qp;
		struct {
			struct ibv_qp_attr attr;
			int32_t mask;
		} qp_attr;
		struct {
			uint64_t cookie;
			uint32_t xrcd, qpn;
		} open_qp;
		struct {
			uint8_t gid[16];
			uint32_t lid;
		} mcast;
		struct {
			uint64_t size;
			int32_t fd; /* of a memfd, a number of the caller's */
		} area;
		char text[32];
	};
};

/* What is known of a device before it is opened. */
struct rnic_listed {
	char name[IBV_SYSFS_NAME_MAX]; /* rxe0 */
	char node[IBV_SYSFS_NAME_MAX]; /* uverbs0 */
	char path[108];		       /* /dev/infiniband/uverbs0 */
	uint64_t guid;		       /* network order */
	uint32_t index;
};

/* What an opening says of a device's ways: enum rnic_ways. */
enum rnic_ways {
	RNIC_PURGES = 1 << 0,	    /* completions of a QP that is reset or destroyed vanish (libmlx5); else they stay (librxe) */
	RNIC_IMPORTS = 1 << 1,	    /* ibv_import_device works */
	RNIC_PARENT_DOMAINS = 1 << 2,
	RNIC_ON_DEMAND = 1 << 3,    /* memory regions may be paged on demand */
};
#endif
