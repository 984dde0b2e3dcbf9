/* What librdmacm has made: it is not moved, and no verb tells of it. */
#ifndef MIGRRDMA_OBJECTS_RDMA_CM_H
#define MIGRRDMA_OBJECTS_RDMA_CM_H

/* Whether a connection manager's identifiers are open: they live in the kernel, and no verb tells of them. */
int mig_holds_rdma_cm(void);

#endif
