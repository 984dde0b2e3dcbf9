/* Ending objects of a device that is gone. */
#ifndef MIGRRDMA_GONE_H
#define MIGRRDMA_GONE_H

#include <infiniband/verbs.h>
#include <stdint.h>

/* As many libibverbs as a process may have loaded, some of them wheels' own. */
#define MIG_GONE_COPIES 16

struct mig_gone {
	struct ibv_context *context;
	int cmd_fd; /* as it was */
	uint32_t copies;
	void *allows[MIG_GONE_COPIES];
	_Bool allowed[MIG_GONE_COPIES]; /* likewise */
};

/*
 * From here on the real library ends objects of this context, which the kernel does not know, without asking it; until
 * mig_gone_end. 0, or an errno, and then they can only be left where they are. No other thread may be ending anything.
 */
int mig_gone_begin(struct mig_gone *gone, struct ibv_context *context);
void mig_gone_end(struct mig_gone *gone);

#endif
