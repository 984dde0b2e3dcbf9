/* Where others have moved to, or this process itself: what its datagrams go by from the next exchange on. */
#ifndef MIGRRDMA_MOVE_PLACES_H
#define MIGRRDMA_MOVE_PLACES_H

#include <stdint.h>

#include "wire/control.h"

/* Makes everything ready; 0 or an errno. `more`: the rest follows. What was made ready before, and not taken up, is replaced. */
int mig_places_prepare(const struct mig_place_record *records, uint32_t count, int more);

/* Whether something is ready. */
int mig_places_are_ready(void);

/* Takes it up, or lets it go. The verb gate must be closed. */
void mig_places_take_up(void);
void mig_places_let_go(void);

#endif
