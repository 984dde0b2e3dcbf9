/* The process as a whole: what it has open, and why it might not be migrated. */
#ifndef MIGRRDMA_SHADOW_PROCESS_H
#define MIGRRDMA_SHADOW_PROCESS_H

#include <stdint.h>

#include "shadow/context.h"
#include "wire/control.h"

/* The process. */
struct mig_process {
	struct mig_lock lock; /* contexts, devices, reasons, the thread */
	struct mig_link contexts;
	struct mig_device *devices;
	uint32_t next_context;
	int pid;
	uint64_t token;
	enum mig_state state; /* the control thread's */
	int restored; /* from a checkpoint, once or more; set by the control thread while the process is parked */
	int reasons;
	char reason[16][MIG_TEXT];
};

extern struct mig_process mig;

/* Keeps the reason why the process cannot be migrated; the same one only once. */
void mig_cannot_migrate(const char *format, ...) __attribute__((format(printf, 1, 2)));


#define MIG_EACH_CONTEXT(context) MIG_EACH(&mig.contexts, context, struct mig_context, link)

#endif
