/* Devices, as the application knows them. */
#ifndef MIGRRDMA_SHADOW_DEVICE_H
#define MIGRRDMA_SHADOW_DEVICE_H

#include <infiniband/verbs.h>

/* A device as the application knows it. Made once per name and never freed, as others may hold it. */
struct mig_device {
	struct ibv_device ibv;
	char real_name[IBV_SYSFS_NAME_MAX]; /* differs from ibv.name after a move */
	__be64 guid;
	int index;
	struct mig_device *next;
};

#endif
