/* What CRIU and its plugin leave in a restored process in place of the device. */
#ifndef MIGRRDMA_PLACEHOLDERS_H
#define MIGRRDMA_PLACEHOLDERS_H

/* Which memory took the place of the device's; the device's own library may unmap some of it before the rest goes. */
void mig_note_placeholders(void);

/* Unmaps the memory that took the place of the device's, and closes the descriptors that lead to that same memory. */
void mig_remove_placeholders(void);

#endif
