/* What the CRIU plugin puts in the place of device mappings, and who clears it away. */
#ifndef MIGRRDMA_LEFTOVER_MAPS_H
#define MIGRRDMA_LEFTOVER_MAPS_H

/* Unmaps every mapping of a memfd called MIG_PLACEHOLDER_NAME. The old objects must not be used any more. */
void mig_unmap_placeholders(void);

#endif
