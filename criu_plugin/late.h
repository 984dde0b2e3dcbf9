/*
 * The commit before the first instruction.
 *
 * In RESUME_DEVICES_LATE every thread of every restored process stands, traced, where it will go on. Of each process the
 * guest library's thread alone is let go: it calls the agent, makes the connections again, and the agent commits. Then it is
 * stopped again, and CRIU lets all threads go. If the agent refuses, or one of them ends meanwhile, the processes are ended, so that
 * nothing of the application has run here and the checkpoint can be restored elsewhere.
 */
#ifndef MIGRRDMA_PLUGIN_LATE_H
#define MIGRRDMA_PLUGIN_LATE_H

#include <stdbool.h>
#include <sys/types.h>

#include "image.h"

/*
 * Returns when it is decided; at once if nobody is to be asked, or if it was not proved that the guests can do it (image).
 * `root`: the first process.
 */
void late_commit(pid_t root, const struct image *image);

/*
 * CRIU's restore has ended: tells the agent whether what was let go goes on. CRIU ends all of it if it finds one that has ended
 * after this plugin has looked at it the last time.
 */
void late_end(bool succeeded);

#endif
