/* One connection to the agent, from its first message to its last. */
#ifndef MIGRRDMA_CONTROL_SESSION_H
#define MIGRRDMA_CONTROL_SESSION_H

#include <stddef.h>
#include <stdint.h>

struct mig_session {
	/* 0 or an errno. */
	int (*send)(struct mig_session *session, const void *message, size_t length);
	int fd;
	int quiescing;	     /* a QUIESCE waits for its answer */
	uint32_t quiesce_id; /* which */
	int welcome;	     /* an agent has answered */
	int closing;	     /* parked for a dump: the connection must go */
};

#endif
