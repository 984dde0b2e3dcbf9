/*
 * Proving at the dump what the restore will need.
 *
 * In a restore the guest library's thread makes the connections again while all others stand where they were stopped (late.h).
 * If one of them held a lock that it needs, it would wait for ever. So at the dump, with all threads stopped, it alone is let
 * go and tries everything that it will take. Where it waits, the thread that has what it waits for is led on until it lets go,
 * but not into beginning or ending a thread or a process. The image then has exactly the state that was proved.
 */
#ifndef MIGRRDMA_PLUGIN_REHEARSAL_H
#define MIGRRDMA_PLUGIN_REHEARSAL_H

#include "array.h"
#include "image.h"

/*
 * In CRIU's environment, set by the runtime if its configuration says late_commit: for how many seconds all are tried. The
 * application stands still meanwhile.
 */
#define REHEARSAL_WANTED "MIGRRDMA_LATE_REHEARSAL"

struct proved {
	ARRAY(struct image_proved) processes;
};

/*
 * If it is wanted, of every process that is traced and whose guest is parked. 0, or -1 with the reason in the log: then nothing may be
 * dumped. A guest that is not parked, or of an older library, is not asked, and not in `proved`.
 */
int rehearse(struct proved *proved);

#endif
