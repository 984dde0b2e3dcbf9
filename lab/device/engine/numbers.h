/* Numbers that are handed out, and what is found by them. */
#ifndef RNIC_NUMBERS_H
#define RNIC_NUMBERS_H

#include <stdbool.h>
#include <stdint.h>

struct rnic_link {
	struct rnic_link *next;
	uint32_t number;
};

struct rnic_table {
	struct rnic_link **buckets;
	uint32_t size, count; /* size: a power of two, or 0 */
};

int rnic_table_add(struct rnic_table *table, struct rnic_link *link, uint32_t number);
void rnic_table_remove(struct rnic_table *table, struct rnic_link *link);
struct rnic_link *rnic_table_find(const struct rnic_table *table, uint32_t number);
void rnic_table_free(struct rnic_table *table);

struct rnic_numbers {
	uint32_t next, step, mask;
	uint32_t *freed; /* the last one freed is the first to come back */
	uint32_t count, capacity;
};

uint32_t rnic_number_take(struct rnic_numbers *numbers, const struct rnic_table *taken, bool reuse);
void rnic_number_give(struct rnic_numbers *numbers, uint32_t number);

struct rnic_handles {
	void **objects;
	uint32_t size, next_free; /* hints: everything below next_free is taken */
};

int rnic_handle_take(struct rnic_handles *handles, void *object, uint32_t *handle);
void *rnic_handle_find(const struct rnic_handles *handles, uint32_t handle);
void rnic_handle_give(struct rnic_handles *handles, uint32_t handle);
#endif
