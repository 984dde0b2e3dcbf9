#include "base/owner.h"

#include <stddef.h>

#include "base/section.h"

#define MAX_CHANGES 8
/* Against a grace period, which is what the next change may cost: some microseconds, as a thousand times the lock. */
#define ALONE 1024

void mig_owner_choose(struct mig_owner *owner, struct mig_section **fast, struct mig_section *section)
{
	if (owner->section && owner->section != section) {
		MIG_SET_GATE(*fast, NULL);
		mig_synchronize_with(owner->section);
		if (owner->changes < MAX_CHANGES)
			owner->changes++;
	}
	owner->run = owner->last == section ? owner->run + 1 : 0;
	owner->last = section;
	if (owner->changes == MAX_CHANGES && owner->run >= ALONE) {
		owner->changes--;
		owner->run = 0;
	}
	owner->section = owner->changes < MAX_CHANGES ? section : NULL;
}
