/* The dynamic linker's questions about what is ours. */
#ifndef MIGRRDMA_ENTRY_REPLACEMENTS_H
#define MIGRRDMA_ENTRY_REPLACEMENTS_H

/* Our own function for one of the real ones or a vendor's name; NULL: we have none. */
void *mig_replacement(const char *name, const void *found);

#endif
