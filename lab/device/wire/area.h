/*
 * The first piece of memory that a library in its process and the daemon share: calls and doorbells.
 *
 * Calls: a thread takes a free slot, fills in the record, sets its bit in `calls` and waits on the slot's state word.
 * Doorbells: a bit for each queue that has something new, and one above for each word of 64. The daemon says `sleeping`
 * before it waits on its descriptors; who finds that set takes it back and writes to the eventfd.
 */
#ifndef RNIC_AREA_H
#define RNIC_AREA_H

#include <stdint.h>

#include "call.h"
#include "events.h"

#define RNIC_AREA_MAGIC UINT64_C(0x434952534941b5e7)
#define RNIC_CALL_SLOTS 16
#define RNIC_BELL_WORDS 1024 /* of 64 queues: twice the handle, plus one for an SRQ */
#define RNIC_BELLS (RNIC_BELL_WORDS * 64u)

enum rnic_slot_state { RNIC_SLOT_FREE, RNIC_SLOT_TAKEN, RNIC_SLOT_ASKED, RNIC_SLOT_ANSWERED };

struct rnic_slot {
	_Alignas(64) uint32_t state; /* a futex; enum rnic_slot_state */
	struct rnic_call call;
};

struct rnic_area {
	uint64_t magic; /* the daemon looks for it in the process's memory: gone after an exec */
	uint32_t version;
	uint32_t faults; /* set by the daemon: calls of the data path must ask first (CALL_DATA_PATH) */
	uint32_t ended;	 /* set by the daemon: nothing is served here any more */
	_Alignas(64) uint32_t sleeping;
	_Alignas(64) uint32_t calls; /* a bit for each slot that is RNIC_SLOT_ASKED */
	_Alignas(64) uint64_t bells_above[RNIC_BELL_WORDS / 64];
	_Alignas(64) uint64_t bells[RNIC_BELL_WORDS];
	struct rnic_slot slots[RNIC_CALL_SLOTS];
	struct rnic_events async;
};

/* A reference: which piece of shared memory (0: this one), and where in it. */
#define RNIC_EXTENT_SHIFT 40
#define RNIC_EXTENT_MAX (UINT64_C(1) << RNIC_EXTENT_SHIFT)
#define RNIC_EXTENTS 4096

/* On the socket, SOCK_SEQPACKET: one question, one answer, and it is closed. */
enum rnic_ask { RNIC_ASK_LIST, RNIC_ASK_OPEN, RNIC_ASK_ALIVE };

struct rnic_question {
	uint32_t version; /* RNIC_WIRE_VERSION */
	uint32_t ask;
	char name[IBV_SYSFS_NAME_MAX]; /* OPEN: the device's */
	uint64_t area;		       /* OPEN: where the first piece is mapped in the asking process */
	uint64_t id;		       /* ALIVE: of the opening; ENOENT: the daemon does not know it */
	/* OPEN: with descriptors: the device node, a memfd of struct rnic_area, the eventfd of doorbells
	 * and the eventfd of asynchronous events */
};

#define RNIC_OPEN_DESCRIPTORS 4
#define RNIC_MOST_DEVICES 8

struct rnic_answer {
	int32_t error; /* EPROTO: another version */
	uint32_t ways; /* OPEN: enum rnic_ways */
	uint64_t id;   /* OPEN: never given twice, by no daemon */
	uint32_t count;
	struct rnic_listed devices[RNIC_MOST_DEVICES]; /* LIST */
};
#endif
