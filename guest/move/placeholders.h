/* What CRIU and its plugin leave in a restored process in place of the device. */
#ifndef MIGRRDMA_PLACEHOLDERS_H
#define MIGRRDMA_PLACEHOLDERS_H

/* Unmaps the memory that took the place of the device's, and closes the descriptors that lead to that same memory. */
void mig_remove_placeholders(void);

#endif
