/*
 * What stands in a restored process for what could not come along, until the guest has rebuilt it.
 *
 * Nothing here may succeed at what only the device can do: a command that seems to work would be lost.
 */
#ifndef MIGRRDMA_PLUGIN_PLACEHOLDER_H
#define MIGRRDMA_PLUGIN_PLACEHOLDER_H

#include "image.h"

/* Each returns a descriptor, which CRIU puts in its place or closes, or -1 with the reason in the log. */
int placeholder_file(const struct image_file *file);
int placeholder_memory(const struct image_mapping *mapping);

#endif
