/* A doubly linked list whose links are members of its elements. */
#ifndef MIGRRDMA_LIST_H
#define MIGRRDMA_LIST_H

#include <stddef.h>

struct mig_link {
	struct mig_link *next, *prev;
};

#define MIG_CONTAINER(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

static inline void mig_list_init(struct mig_link *list)
{
	list->next = list->prev = list;
}

static inline void mig_list_add(struct mig_link *list, struct mig_link *link)
{
	link->prev = list->prev;
	link->next = list;
	list->prev->next = link;
	list->prev = link;
}

static inline void mig_list_remove(struct mig_link *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	mig_list_init(link);
}

/* Oldest first, which is the order in which objects may depend on each other. */
#define MIG_EACH(list, entry, type, member)                                                                \
	for (type *entry = MIG_CONTAINER((list)->next, type, member); &entry->member != (list);             \
	     entry = MIG_CONTAINER(entry->member.next, type, member))

#endif
