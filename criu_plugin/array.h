/* A growing array of plain structures. */
#ifndef MIGRRDMA_PLUGIN_ARRAY_H
#define MIGRRDMA_PLUGIN_ARRAY_H

#include <stddef.h>

#define ARRAY(type)                                                                                        \
	struct {                                                                                           \
		type *items;                                                                               \
		size_t count;                                                                              \
		size_t room;                                                                               \
	}

/* Room for one more at the end; false: out of memory, the array is as before. */
int array_grow(void **items, size_t count, size_t *room, size_t size);

/* 0, or -1 when memory is out (logged). */
#define array_append(array, item)                                                                          \
	(array_grow((void **)&(array)->items, (array)->count, &(array)->room, sizeof(*(array)->items))     \
		 ? -1                                                                                      \
		 : ((array)->items[(array)->count++] = (item), 0))

#define array_free(array)                                                                                  \
	do {                                                                                               \
		free((array)->items);                                                                      \
		(array)->items = NULL;                                                                     \
		(array)->count = (array)->room = 0;                                                        \
	} while (0)

#endif
