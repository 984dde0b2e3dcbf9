/*
 * Memory that devices may have written to, now or earlier: the kernel does not see those writes, so nobody who copies the
 * process's memory while it runs may believe what the kernel says of it (migrrdma_runtime/shim/nic_writes.py reads this).
 *
 * What is deregistered stays: a device may have written to it since somebody has copied it.
 */
#ifndef MIGRRDMA_SHADOW_REACH_H
#define MIGRRDMA_SHADOW_REACH_H

#include <stddef.h>
#include <stdint.h>

/* When there are more pieces, the nearest ones become one, with what is between them. */
#define MIG_REACH_PIECES 1024

struct mig_reach {
	uint32_t count;
	struct {
		uint64_t start, end;
	} pieces[MIG_REACH_PIECES]; /* in order; they do not touch each other */
};

extern struct mig_reach mig_reach;

/* Memory is registered; `access` says whether devices may write to it. */
void mig_reach_add(const void *addr, size_t length, unsigned int access);

#endif
