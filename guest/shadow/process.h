/* The process as a whole: what it has open, and why it might not be migrated. */
#ifndef MIGRRDMA_SHADOW_PROCESS_H
#define MIGRRDMA_SHADOW_PROCESS_H

#include <stdint.h>

#include "shadow/context.h"
#include "wire/control.h"

/* More are not kept apart: the last one then stays for ever. */
#define MIG_REASONS 16
#define MIG_FOR_EVER UINT32_MAX

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
	int differs; /* a queue pair has had another number than the application knows; likewise */
	int cannot_quiesce; /* for one of the reasons, not even a few queue pairs can be brought to rest */
	int reasons; /* lock, and so for the two arrays */
	char reason[MIG_REASONS][MIG_TEXT];
	uint32_t reason_objects[MIG_REASONS]; /* how many live objects give it; MIG_FOR_EVER: none of them ends it */
};

extern struct mig_process mig;

/*
 * Keeps the reason why the process cannot be migrated, for ever; the same one only once. For one that an object gives as long
 * as it lives there are marks (shadow/marks.h).
 */
void mig_cannot_migrate(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Likewise, and the process cannot rest for others that move either. */
void mig_cannot_quiesce(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A reason that so many more objects give, or MIG_FOR_EVER; and that one fewer gives. Must hold the process's lock. */
void mig_reason_add(const char *text, uint32_t objects);
void mig_reason_drop(const char *text);

#define MIG_EACH_CONTEXT(context) MIG_EACH(&mig.contexts, context, struct mig_context, link)

#endif
