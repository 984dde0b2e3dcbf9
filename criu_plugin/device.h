/* Which RDMA character device or RDMA descriptor something is. */
#ifndef MIGRRDMA_PLUGIN_DEVICE_H
#define MIGRRDMA_PLUGIN_DEVICE_H

#include <sys/types.h>

#ifndef SYSFS /* the tests have one of their own */
#define SYSFS "/sys"
#endif

/* IB_DEVICE_NAME_MAX of the kernel, the final NUL included. */
#define DEVICE_NAME 64

enum device_kind {
	DEVICE_OTHER,	/* nothing of ours */
	DEVICE_UVERBS,	/* /dev/infiniband/uverbsN */
	DEVICE_EVENTS,	/* a completion channel or the asynchronous events of an uverbs device */
	DEVICE_RDMA_CM, /* /dev/infiniband/rdma_cm */
	DEVICE_UMAD,	/* /dev/infiniband/umadN */
	DEVICE_ISSM,	/* /dev/infiniband/issmN */
	DEVICE_DEVX,	/* the completions or events of mlx5's DEVX */
};

struct device {
	enum device_kind kind;
	char node[DEVICE_NAME];	  /* uverbs0 */
	char ibdev[DEVICE_NAME];  /* rxe0; empty where there is none */
};

/* What the character device is, asked of the sysfs mounted at `sysfs`. The path of its node says nothing. */
void device_of_number(const char *sysfs, dev_t number, struct device *device);

/* What the link of /proc/PID/fd of an anonymous inode says; DEVICE_OTHER for a path. */
enum device_kind device_of_link(const char *link);

/* What to call it in a message. */
const char *device_kind_name(enum device_kind kind);

#endif
