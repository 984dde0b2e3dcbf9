/* Devices, under the names that the application knows. */
#ifndef MIGRRDMA_OBJECTS_DEVICE_H
#define MIGRRDMA_OBJECTS_DEVICE_H

#include "shadow/device.h"

/* The shadow of a device that the application was given; NULL: it is the real library's own. */
struct mig_device *mig_device(const struct ibv_device *ibv);

/* A real device by its name, opened; NULL and errno. */
struct ibv_context *mig_open_by_name(const char *name);

#endif
