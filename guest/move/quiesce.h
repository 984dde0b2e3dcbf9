/*
 * Wait-before-stop: new sends are kept, those under way are driven to completion, completions are kept for the
 * application. All of it belongs to the control thread.
 */
#ifndef MIGRRDMA_QUIESCE_H
#define MIGRRDMA_QUIESCE_H

#include "shadow/qp.h"
#include "wire/control.h"

struct mig_selection {
	enum mig_scope_kind kind;
	uint32_t context;
	const struct mig_qp_name *names;
	uint32_t count;
};

/* Sets every QP's `selected`. The verb gate must be closed. */
void mig_select(const struct mig_selection *selection);

/* Closes the gates of these QPs, but of those that have failed: there is nothing to be waited for. 0, or an errno with *which the QP it is about, and nothing changed; ENOTSUP: *why it cannot. */
int mig_quiesce_begin(const struct mig_selection *selection, uint32_t timeout_ms, struct mig_qp_name *which, const char **why);

/*
 * Drives the drain on. EINPROGRESS: call again soon. 0: drained. Else it is over, undone, and names holds up to
 * `room` of the QPs that did not drain, *count of them.
 */
int mig_quiesce_step(struct mig_qp_name *names, uint32_t room, uint32_t *count);

/* Opens the gates; kept sends go first. The verb gate must be closed. */
void mig_quiesce_end(void);

/* Sends of ended quiesces that did not fit into their queues at once. Whether there are still some. */
int mig_quiesce_flush(void);

#endif
