/*
 * What has a number: a hash table that grows, for the slow verbs and the control thread. Several things may have the
 * same number at the same time. Must hold the context's lock, or have closed the verb gate.
 */
#ifndef MIGRRDMA_NUMBERS_H
#define MIGRRDMA_NUMBERS_H

#include <stdint.h>

struct mig_number {
	uint32_t number, used; /* used: 0 never, 1 yes, 2 no more */
	void *what;
};

struct mig_numbers {
	struct mig_number *slots;
	uint32_t mask; /* slots - 1 */
	uint32_t taken; /* slots that are not free, though perhaps used no more */
	uint32_t count;
};

/* 0, or ENOMEM and nothing has changed. */
int mig_numbers_add(struct mig_numbers *numbers, uint32_t number, void *what);
void mig_numbers_remove(struct mig_numbers *numbers, uint32_t number, void *what);

/* One that has the number, or NULL. */
void *mig_numbers_find(const struct mig_numbers *numbers, uint32_t number);

void mig_numbers_free(struct mig_numbers *numbers);

/*
 * Objects that the device gave a number which is somebody else's: kept while another one is asked for, so that their
 * numbers are not given again.
 */
struct mig_refused {
	void **objects;
	uint32_t count, room;
};

/* 0, or ENOMEM and the object is the caller's. */
int mig_refuse(struct mig_refused *refused, void *object);

/* The next one to end, or NULL. errno is as before. */
void *mig_refused_next(struct mig_refused *refused);

#endif
