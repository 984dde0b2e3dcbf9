/*
 * Queues in memory that the application's side and the device's side both see: one producer, one consumer.
 *
 * Send, receive and shared receive queues: the application produces, the device consumes; a slot is free again when the
 * device has advanced `consumed`, which for a send is when it has completed. Completion queues: the device produces.
 * Numbers and flags are those of <infiniband/verbs.h> (enum ibv_wr_opcode, ibv_send_flags, ibv_wc_status, …).
 * Counters run freely modulo 2^32; slots are a power of two, so that the wrap shows nowhere. The device trusts nothing
 * in here but `produced` (of queues) and `consumed` (of completion queues), and checks each for its range.
 */
#ifndef RNIC_RING_H
#define RNIC_RING_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define RNIC_LINE 64
#define RNIC_MAX_SGE 32
#define RNIC_MAX_INLINE 1024

enum rnic_armed { RNIC_ARMED_NOT, RNIC_ARMED_SOLICITED, RNIC_ARMED_ANY };

struct rnic_ring {
	uint32_t stride; /* bytes from element to element */
	uint32_t slots;	 /* a power of two, >= depth */
	uint32_t depth;	 /* as many elements may be outstanding */
	_Alignas(RNIC_LINE) uint32_t produced;
	_Alignas(RNIC_LINE) uint32_t consumed;
	_Alignas(RNIC_LINE) uint32_t armed; /* completion queues: enum rnic_armed; the device takes it back */
	_Alignas(RNIC_LINE) unsigned char elements[];
};

struct rnic_sge {
	uint64_t address;
	uint32_t length;
	uint32_t lkey;
};

/* Where a datagram goes: the contents of struct ibv_ah_attr. */
struct rnic_route {
	uint8_t dgid[16];
	uint32_t flow_label;
	uint16_t dlid;
	uint8_t sgid_index, hop_limit, traffic_class, sl, port, is_global;
};

struct rnic_send {
	uint64_t wr_id;
	uint32_t opcode; /* enum ibv_wr_opcode */
	uint32_t flags;	 /* enum ibv_send_flags; with IBV_SEND_INLINE `bytes` of data stand where the SGEs would */
	uint32_t imm;	 /* immediate data in network order, or the rkey to invalidate */
	uint32_t xrc_srqn;
	uint32_t num_sge;
	uint32_t bytes; /* of inline data */
	union {
		struct {
			uint64_t address;
			uint32_t rkey;
		} rdma;
		struct {
			uint64_t address, compare_add, swap;
			uint32_t rkey;
		} atomic;
		struct {
			struct rnic_route route;
			uint32_t qpn, qkey;
		} ud;
		struct {
			uint64_t address, length; /* length 0: the window ends */
			uint32_t mw, mr;	  /* handles */
			uint32_t rkey;		  /* the window's new one */
			uint32_t present;	  /* and what the request takes for its present one */
			uint32_t access;
		} bind;
	};
	/* num_sge elements, or the inline data */
	struct rnic_sge sges[];
};

struct rnic_receive {
	uint64_t wr_id;
	uint32_t num_sge;
	uint32_t reserved;
	struct rnic_sge sges[];
};

/* The contents of struct ibv_wc; `opcode` is meaningful with errors, too (extended queues and checkers ask for it). */
struct rnic_completion {
	uint64_t wr_id;
	uint64_t time; /* ns of the engine's clock at which it was produced */
	uint32_t status, opcode, vendor_error, bytes;
	uint32_t imm; /* network order, or the rkey that was invalidated */
	uint32_t qpn, source_qpn, flags;
	uint16_t pkey_index, slid;
	uint8_t sl, path_bits;
	uint8_t reserved[2];
	uint32_t qp; /* handle of the QP in its context */
	uint32_t srqn; /* of receives from a shared queue; else 0 */
};

static inline uint32_t rnic_stride(size_t header, uint32_t sges, uint32_t inline_bytes)
{
	size_t tail = sges * sizeof(struct rnic_sge);

	if (tail < inline_bytes)
		tail = inline_bytes;
	return (uint32_t)((header + tail + RNIC_LINE - 1) / RNIC_LINE * RNIC_LINE);
}

static inline uint32_t rnic_slots(uint32_t depth)
{
	uint32_t slots = 1;

	while (slots < depth)
		slots *= 2;
	return slots;
}

/* Bytes that a queue takes. */
static inline size_t rnic_ring_size(uint32_t depth, uint32_t stride)
{
	return sizeof(struct rnic_ring) + (size_t)rnic_slots(depth) * stride;
}

static inline void rnic_ring_init(struct rnic_ring *ring, uint32_t depth, uint32_t stride)
{
	memset(ring, 0, sizeof(*ring));
	ring->stride = stride;
	ring->slots = rnic_slots(depth);
	ring->depth = depth;
}

static inline void *rnic_ring_at(struct rnic_ring *ring, uint32_t counter)
{
	return ring->elements + (size_t)(counter & (ring->slots - 1)) * ring->stride;
}

/* The producer's: a free slot to be filled, or NULL if the queue is full. `ahead`: slots already filled, not yet given. */
static inline void *rnic_ring_free(struct rnic_ring *ring, uint32_t ahead)
{
	uint32_t next = ring->produced + ahead;

	if (next - __atomic_load_n(&ring->consumed, __ATOMIC_ACQUIRE) >= ring->depth)
		return NULL;
	return rnic_ring_at(ring, next);
}

static inline void rnic_ring_give(struct rnic_ring *ring, uint32_t count)
{
	__atomic_store_n(&ring->produced, ring->produced + count, __ATOMIC_RELEASE);
}

/* The consumer's: the element `ahead` of the oldest, or NULL. */
static inline void *rnic_ring_oldest(struct rnic_ring *ring, uint32_t ahead)
{
	uint32_t at = ring->consumed + ahead;

	/* Free-running counters: more than depth between them is not "ahead" but behind. */
	if (__atomic_load_n(&ring->produced, __ATOMIC_ACQUIRE) - ring->consumed <= ahead)
		return NULL;
	return rnic_ring_at(ring, at);
}

static inline void rnic_ring_take(struct rnic_ring *ring, uint32_t count)
{
	__atomic_store_n(&ring->consumed, ring->consumed + count, __ATOMIC_RELEASE);
}

/* libmlx5's behaviour on RESET and destroy: the QP's completions vanish from the queue. The consumer's side, its poll lock held,
 * and the device quiet (the engine's lock held, or the QP already ended). Returns how many went. */
uint32_t rnic_completions_purge(struct rnic_ring *ring, uint32_t qpn);
#endif
