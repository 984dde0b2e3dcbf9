#include "base/numbers.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/pages.h"

enum { NEVER, USED, NO_MORE };

/* The upper bits of the product depend on all of the number's. */
static uint32_t first_slot(uint32_t mask, uint32_t number)
{
	return (uint32_t)((uint64_t)(number * 2654435769u) * ((uint64_t)mask + 1) >> 32);
}

static void numbers_put(struct mig_number *slots, uint32_t mask, uint32_t number, void *what)
{
	uint32_t slot = first_slot(mask, number);

	while (slots[slot].used == USED)
		slot = (slot + 1) & mask;
	slots[slot] = (struct mig_number){ number, USED, what };
}

static int numbers_make_room(struct mig_numbers *numbers)
{
	uint32_t size = 64;

	if (numbers->slots && numbers->taken < numbers->mask / 2)
		return 0;
	/* Those that are used no more are left behind. */
	while (size / 4 <= numbers->count)
		size *= 2;
	struct mig_number *larger = mig_pages_alloc(size * sizeof(*larger));
	if (!larger)
		return ENOMEM;
	for (uint32_t i = 0; numbers->slots && i <= numbers->mask; i++)
		if (numbers->slots[i].used == USED)
			numbers_put(larger, size - 1, numbers->slots[i].number, numbers->slots[i].what);
	mig_pages_free(numbers->slots);
	numbers->slots = larger;
	numbers->mask = size - 1;
	numbers->taken = numbers->count;
	return 0;
}

int mig_numbers_add(struct mig_numbers *numbers, uint32_t number, void *what)
{
	int error = numbers_make_room(numbers);

	if (error)
		return error;
	numbers_put(numbers->slots, numbers->mask, number, what);
	numbers->count++;
	numbers->taken++;
	return 0;
}

static struct mig_number *find(const struct mig_numbers *numbers, uint32_t number, const void *what)
{
	uint32_t slot = numbers->slots ? first_slot(numbers->mask, number) : 0;

	while (numbers->slots && numbers->slots[slot].used != NEVER) {
		struct mig_number *found = &numbers->slots[slot];

		if (found->used == USED && found->number == number && (!what || found->what == what))
			return found;
		slot = (slot + 1) & numbers->mask;
	}
	return NULL;
}

void mig_numbers_remove(struct mig_numbers *numbers, uint32_t number, void *what)
{
	struct mig_number *found = find(numbers, number, what);

	if (!found)
		return;
	found->used = NO_MORE;
	numbers->count--;
}

void *mig_numbers_find(const struct mig_numbers *numbers, uint32_t number)
{
	struct mig_number *found = find(numbers, number, NULL);

	return found ? found->what : NULL;
}

void mig_numbers_free(struct mig_numbers *numbers)
{
	mig_pages_free(numbers->slots);
	memset(numbers, 0, sizeof(*numbers));
}

int mig_refuse(struct mig_refused *refused, void *object)
{
	if (refused->count == refused->room) {
		uint32_t room = refused->room ? refused->room * 4 : 512;
		void **larger = mig_pages_alloc(room * sizeof(*larger));

		if (!larger)
			return ENOMEM;
		if (refused->count)
			memcpy(larger, refused->objects, refused->count * sizeof(*larger));
		mig_pages_free(refused->objects);
		refused->objects = larger;
		refused->room = room;
	}
	refused->objects[refused->count++] = object;
	return 0;
}

void *mig_refused_next(struct mig_refused *refused)
{
	if (refused->count)
		return refused->objects[--refused->count];
	mig_pages_free(refused->objects);
	refused->objects = NULL;
	return NULL;
}
