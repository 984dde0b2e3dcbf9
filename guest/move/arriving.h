/* Records of one list that arrive in several messages. */
#ifndef MIGRRDMA_MOVE_ARRIVING_H
#define MIGRRDMA_MOVE_ARRIVING_H

#include <stddef.h>
#include <stdint.h>

struct mig_arriving {
	void *records;
	uint32_t count, room;
};

/* Adds `count` records of `size` bytes each. 0, ENOMEM, or E2BIG if there would be more than `most`. */
int mig_arriving_add(struct mig_arriving *arriving, const void *records, uint32_t count, size_t size, uint32_t most);
void mig_arriving_forget(struct mig_arriving *arriving);

#endif
