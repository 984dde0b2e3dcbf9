/* Functions of another object that lead to ours from now on, whoever calls them by name. */
#ifndef MIGRRDMA_REDIRECT_H
#define MIGRRDMA_REDIRECT_H

#include "base/elf.h"

/*
 * The function of that name, which the object defines at `from`, is found at `to` by whoever looks it up from now on, and by those
 * whose references have been resolved already. Who has copied its address is not reached. 0 or an errno.
 */
int mig_redirect(const struct mig_elf *object, const char *name, const void *from, const void *to);

#endif
