/* Numbers of a device (QPNs, keys, …), which are scarce and come back, and handles of a context. */
#include "internal.h"

static uint32_t bucket(const struct rnic_table *table, uint32_t number)
{
	return (number * 2654435769u >> 7) & (table->size - 1);
}

static int grow(struct rnic_table *table)
{
	struct rnic_table larger = { .size = table->size ? table->size * 2 : 64 };

	larger.buckets = calloc(larger.size, sizeof(*larger.buckets));
	if (!larger.buckets)
		return ENOMEM;
	for (uint32_t i = 0; i < table->size; i++)
		for (struct rnic_link *link = table->buckets[i], *next; link; link = next) {
			struct rnic_link **chain = &larger.buckets[bucket(&larger, link->number)];

			next = link->next;
			link->next = *chain;
			*chain = link;
		}
	larger.count = table->count;
	free(table->buckets);
	*table = larger;
	return 0;
}

int rnic_table_add(struct rnic_table *table, struct rnic_link *link, uint32_t number)
{
	if (table->count >= table->size && grow(table))
		return ENOMEM;
	link->number = number;
	link->next = table->buckets[bucket(table, number)];
	table->buckets[bucket(table, number)] = link;
	table->count++;
	return 0;
}

void rnic_table_remove(struct rnic_table *table, struct rnic_link *link)
{
	struct rnic_link **at = &table->buckets[bucket(table, link->number)];

	while (*at != link)
		at = &(*at)->next;
	*at = link->next;
	table->count--;
}

struct rnic_link *rnic_table_find(const struct rnic_table *table, uint32_t number)
{
	struct rnic_link *link = table->size ? table->buckets[bucket(table, number)] : NULL;

	while (link && link->number != number)
		link = link->next;
	return link;
}

void rnic_table_free(struct rnic_table *table)
{
	free(table->buckets);
	*table = (struct rnic_table){ 0 };
}

uint32_t rnic_number_take(struct rnic_numbers *numbers, const struct rnic_table *taken, bool reuse)
{
	uint32_t number;

	/* Numbers may have been set anew since one was freed, so what the stack holds may be taken. */
	while (reuse && numbers->count) {
		number = numbers->freed[--numbers->count];
		if (!rnic_table_find(taken, number))
			return number;
	}
	do {
		number = numbers->next & numbers->mask;
		numbers->next += numbers->step;
	} while (!number || number == 0xffffff /* no QPN, but a group of them */ || rnic_table_find(taken, number));
	return number;
}

void rnic_number_give(struct rnic_numbers *numbers, uint32_t number)
{
	if (numbers->count == numbers->capacity) {
		uint32_t capacity = numbers->capacity ? numbers->capacity * 2 : 64;
		uint32_t *freed = realloc(numbers->freed, capacity * sizeof(*freed));

		/* A number that is forgotten merely does not come back soon. */
		if (!freed)
			return;
		numbers->freed = freed;
		numbers->capacity = capacity;
	}
	numbers->freed[numbers->count++] = number;
}

int rnic_handle_take(struct rnic_handles *handles, void *object, uint32_t *handle)
{
	uint32_t at = handles->next_free;

	while (at < handles->size && handles->objects[at])
		at++;
	if (at == handles->size) {
		uint32_t size = handles->size ? handles->size * 2 : 16;
		void **objects = realloc(handles->objects, size * sizeof(*objects));

		if (!objects)
			return ENOMEM;
		memset(objects + handles->size, 0, (size - handles->size) * sizeof(*objects));
		handles->objects = objects;
		handles->size = size;
	}
	handles->objects[at] = object;
	handles->next_free = at + 1;
	*handle = at;
	return 0;
}

void *rnic_handle_find(const struct rnic_handles *handles, uint32_t handle)
{
	return handle < handles->size ? handles->objects[handle] : NULL;
}

void rnic_handle_give(struct rnic_handles *handles, uint32_t handle)
{
	handles->objects[handle] = NULL;
	if (handle < handles->next_free)
		handles->next_free = handle;
}
