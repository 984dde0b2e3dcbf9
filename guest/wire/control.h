/*
 * The messages between a guest and its host's agent: the only definition there is.
 *
 * The agent reads this file too (migrrdma_runtime/wire/guest_messages.py), so it keeps to a small subset of C:
 * #define NAME number, enumerations of numbers, and structures of uintN_t and int32_t members or arrays.
 * Every structure is naturally aligned without padding, and little endian: both ends are one machine.
 *
 * A message is one datagram of a SOCK_SEQPACKET socket: a header, the fixed body of its type, then
 * `count` records of its type. What each one means is in docs/protocol.md.
 */
#ifndef MIGRRDMA_CONTROL_H
#define MIGRRDMA_CONTROL_H

#include <stdint.h>

#define MIG_CONTROL_MAGIC 0x4d524d47
#define MIG_CONTROL_VERSION 5

/* A longer reply travels in several messages of at most this size, all but the last with MIG_FLAG_MORE. */
#define MIG_MESSAGE_MAX 32768
#define MIG_FLAG_MORE 1
/* Of KEYS: its numbers are those of shared receive queues, by which messages of XRC name them. */
#define MIG_FLAG_SRQS 2

#define MIG_DEVICE_NAME 64
#define MIG_TEXT 160
#define MIG_BUILD_ID 20

/* What the guest's control thread is called, by which it is found from outside. */
#define MIG_THREAD_NAME "migrrdma"

/*
 * How CRIU's plugin and the control thread of a parked process talk during a dump, when there is no connection: by calls of
 * prctl with an operation that no kernel knows, which the plugin, who traces the thread, sees and answers. ASK is answered
 * REHEARSE if the locks are to be tried, and as an error by the kernel alone; DONE says that this is over.
 */
#define MIG_PRCTL 0x4d494752
#define MIG_PRCTL_ASK 1
#define MIG_PRCTL_DONE 2
#define MIG_PRCTL_REHEARSE 1

/* The memfd behind a restored device mapping carries this name, so that the guest can find and unmap it. */
#define MIG_PLACEHOLDER_NAME "migrrdma-device"

/* X(number, NAME, body, record, reply): reply is the type that answers it, NONE for a message that is one. */
#define MIG_MESSAGES(X)                                                                                    \
	X(1, HELLO, mig_hello, mig_none, WELCOME)                                                          \
	X(2, WELCOME, mig_welcome, mig_none, NONE)                                                           \
	X(3, DONE, mig_done, mig_qp_name, NONE)                                                            \
	X(4, INVENTORY, mig_none, mig_none, INVENTORY_IS)                                                  \
	X(5, INVENTORY_IS, mig_inventory, mig_reason, NONE)                                                \
	X(6, LIST_CONTEXTS, mig_none, mig_none, CONTEXTS)                                                  \
	X(7, CONTEXTS, mig_none, mig_context_record, NONE)                                                 \
	X(8, LIST_QPS, mig_none, mig_none, QPS)                                                            \
	X(9, QPS, mig_none, mig_qp_record, NONE)                                                           \
	X(10, LIST_MRS, mig_none, mig_none, MRS)                                                           \
	X(11, MRS, mig_none, mig_mr_record, NONE)                                                          \
	X(12, QUIESCE, mig_scope, mig_qp_name, DONE)                                                       \
	X(13, UNDO, mig_none, mig_none, DONE)                                                              \
	X(14, PARK, mig_park, mig_none, DONE)                                                              \
	X(15, REBUILD, mig_rebuild, mig_gid_record, QPS)                                                   \
	X(16, PREPARE, mig_scope, mig_qp_name, QPS)                                                        \
	X(17, CONNECT, mig_none, mig_connect_record, DONE)                                                 \
	X(18, KEYS, mig_keys, mig_key_record, DONE)                                                        \
	X(19, RESUME, mig_none, mig_none, DONE)                                                            \
	X(20, LIST_ADDRESSES, mig_none, mig_none, ADDRESSES)                                               \
	X(21, ADDRESSES, mig_none, mig_address_record, NONE)                                               \
	X(22, PLACES, mig_none, mig_place_record, DONE)                                                    \
	X(23, WHERE, mig_where, mig_none, THERE)                                                           \
	X(24, THERE, mig_there, mig_key_record, NONE)                                                      \
	X(25, FIND, mig_find, mig_none, QPS)

enum mig_state {
	MIG_STATE_RUNNING = 1,
	MIG_STATE_QUIESCING = 2,
	MIG_STATE_QUIESCED = 3,
	MIG_STATE_PARKED = 4,
	MIG_STATE_REBUILT = 5,
};

enum mig_scope_kind {
	MIG_SCOPE_ALL = 0,
	MIG_SCOPE_CONTEXT = 1,
	MIG_SCOPE_LISTED = 2,
};

enum mig_park_flag {
	MIG_PARK_CLOSE = 1,
};

enum mig_rebuild_flag {
	MIG_REBUILD_RESTORED = 1,
};

/* What an address is to a process that sends and takes datagrams. */
enum mig_address_kind {
	MIG_ADDRESS_OWN = 1,	/* of one of its ports: its queue pairs are known by it */
	MIG_ADDRESS_PEER = 2,	/* it has an address handle for it */
	MIG_ADDRESS_FORMER = 3, /* it had one, or whom it talked to there has moved */
	MIG_ADDRESS_BLIND = 4,	/* none: it has a queue pair that cannot be told of a move */
	MIG_ADDRESS_KNOWN = 5,	/* it was its own before a move, and the application goes on using it */
	MIG_ADDRESS_TOLD = 6,	/* it is its own, and the application has asked which it is */
};

struct mig_header {
	uint32_t magic;
	uint16_t version;
	uint16_t type;
	uint32_t id;
	uint32_t count;
	uint32_t flags;
	uint32_t reserved;
};

struct mig_none {
};

struct mig_hello {
	uint64_t token;
	uint32_t pid;
	uint32_t state;
	uint32_t contexts;
	uint32_t differs; /* a queue pair of it has, or had, another number or GID than the application knows */
	uint8_t build_id[MIG_BUILD_ID];
	uint8_t pad[4];
};

struct mig_welcome {
	uint32_t answers; /* whether WHERE is answered */
	uint32_t reserved;
};

struct mig_done {
	int32_t error;
	uint32_t reserved;
	uint8_t text[MIG_TEXT];
};

struct mig_reason {
	uint8_t text[MIG_TEXT];
};

struct mig_inventory {
	uint32_t migratable;
	uint32_t state;
	uint32_t contexts;
	uint32_t pds;
	uint32_t mrs;
	uint32_t channels;
	uint32_t cqs;
	uint32_t qps;
	uint32_t srqs;
	uint32_t keys; /* records of an answer to LIST_MRS, at the most */
	uint64_t mr_bytes;
	uint64_t receives;
};

struct mig_context_record {
	uint32_t context;
	int32_t cmd_fd;
	int32_t async_fd;
	uint32_t ports;
	uint8_t device[MIG_DEVICE_NAME];
	uint8_t real_device[MIG_DEVICE_NAME];
};

struct mig_qp_name {
	uint32_t context;
	uint32_t vqpn;
};

struct mig_qp_record {
	uint32_t context;
	uint32_t vqpn;
	uint32_t pqpn;
	uint32_t next_pqpn;
	uint32_t type;
	uint32_t state;
	uint32_t dest_vqpn;
	uint32_t dest_pqpn;
	uint32_t sq_psn;
	uint32_t rq_psn;
	uint32_t port;
	uint32_t sgid_index;
	uint32_t path_mtu;
	uint32_t receives;
	uint32_t pd; /* as in mig_mr_record; 0: nothing is reached by it */
	uint8_t sgid[16];
	uint8_t dgid[16];
};

/* Which name space the numbers of a record are of; those of shared receive queues stand where rkeys do. */
enum mig_number_kind {
	MIG_NUMBER_KEY = 0,
	MIG_NUMBER_SRQ = 1,
};

struct mig_mr_record {
	uint64_t addr;
	uint64_t length;
	uint32_t context;
	uint32_t access;
	uint32_t vlkey;
	uint32_t vrkey;
	uint32_t plkey;
	uint32_t prkey;
	/* Its protection domain, or the XRC domain by whose targets it is reached: a number of the guest's own, of one context,
	 * the same after every move. */
	uint32_t pd;
	uint32_t kind;
};

struct mig_scope {
	uint32_t kind;
	uint32_t context;
	uint32_t timeout_ms;
	uint32_t alone_s; /* of QUIESCE: how long it stays quiesced without a word from an agent */
};

struct mig_park {
	uint32_t flags;
	uint32_t reserved;
};

struct mig_rebuild {
	uint32_t context;
	uint32_t flags;
	uint8_t device[MIG_DEVICE_NAME];
};

struct mig_gid_record {
	uint32_t port;
	uint32_t index;
	uint32_t new_port;
	uint32_t new_index;
};

struct mig_connect_record {
	uint32_t context;
	uint32_t vqpn;
	uint32_t dest_pqpn;
	uint32_t sq_psn;
	uint32_t rq_psn;
	uint32_t reserved;
	uint64_t peer;
	uint8_t dgid[16];
};

struct mig_keys {
	uint64_t peer;
};

struct mig_key_record {
	uint32_t vrkey;
	uint32_t prkey;
};

struct mig_address_record {
	uint32_t context;
	uint32_t kind;
	uint32_t port;
	uint32_t index;
	uint8_t vgid[16]; /* OWN: what the application takes it for */
	uint8_t gid[16];
};

/* A queue pair for datagrams: how applications name it, where it is, and where it will be. */
struct mig_place_record {
	uint32_t vqpn;
	uint32_t qpn;
	uint32_t new_qpn;
	uint32_t reserved;
	uint8_t vgid[16];
	uint8_t gid[16];
	uint8_t new_gid[16];
};

/* Where is the queue pair that is called so? Asked by one that is about to be connected to it, and says who it is itself. */
struct mig_where {
	uint32_t context;
	uint32_t vqpn;
	uint32_t pqpn;
	uint32_t qpn;
	uint8_t vgid[16];
	uint8_t gid[16];
	uint8_t dgid[16];
};

/* With the rkeys by which its memory is reached, of which `keys` come in all. EAGAIN: it is being moved, and is to be asked for again. */
struct mig_there {
	int32_t error;
	uint32_t qpn;
	uint64_t peer;
	uint32_t keys;
	uint32_t reserved;
	uint8_t gid[16];
	uint8_t text[MIG_TEXT];
};

/* Whose application calls a queue pair so. Of those found `sgid` is where that GID of theirs is now, or 0: as it says. */
struct mig_find {
	uint32_t vqpn;
	uint32_t reserved;
	uint8_t vgid[16];
};

#endif
