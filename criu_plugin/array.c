#include "array.h"

#include <stdint.h>
#include <stdlib.h>

#include "log.h"

int array_grow(void **items, size_t count, size_t *room, size_t size)
{
	if (count < *room)
		return 0;
	size_t wanted = *room ? *room * 2 : 16;
	void *grown = reallocarray(*items, wanted, size);
	if (!grown) {
		pr_err("out of memory for %zu entries of %zu bytes", wanted, size);
		return -1;
	}
	*items = grown;
	*room = wanted;
	return 0;
}
