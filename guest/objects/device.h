/* Devices, under the names that the application knows. */
#ifndef MIGRRDMA_OBJECTS_DEVICE_H
#define MIGRRDMA_OBJECTS_DEVICE_H

#include <infiniband/verbs.h>

/* A real device by its name, opened; NULL and errno. */
struct ibv_context *mig_open_by_name(const char *name);

#endif
