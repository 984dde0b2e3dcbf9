/* What the process has open, looked at through /proc: nothing is paid for it while nobody asks. */
#ifndef MIGRRDMA_DESCRIPTORS_H
#define MIGRRDMA_DESCRIPTORS_H

#include <sys/stat.h>

/* Calls look with every open descriptor and what it leads to, cut off at 255 characters. 0 or an errno. */
int mig_each_descriptor(void (*look)(int fd, const char *target, void *argument), void *argument);

/* As fstat(2), which C libraries before 2.33 do not export. 0 or an errno. */
int mig_stat_descriptor(int fd, struct stat *stat);

#endif
