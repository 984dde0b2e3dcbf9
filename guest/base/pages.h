/*
 * Memory straight from the kernel, for the control thread: an allocator may call back into verbs, and the control
 * thread allocates while verbs wait for it.
 */
#ifndef MIGRRDMA_PAGES_H
#define MIGRRDMA_PAGES_H

#include <stddef.h>

/* Zeroed; NULL: out of memory. */
void *mig_pages_alloc(size_t size);
void mig_pages_free(void *pages);

#endif
