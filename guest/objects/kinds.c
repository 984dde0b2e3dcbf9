#include "objects/kinds.h"

#define MIG_KIND_ROW(kind) &kind,
static const struct mig_kind *const kinds[] = { MIG_KINDS(MIG_KIND_ROW) };

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

#define EACH_KIND(kind)                                                                                    \
	for (const struct mig_kind *const *row = kinds, *kind; row < kinds + KINDS && (kind = *row, 1); row++)
#define EACH_KIND_FROM_THE_LAST(kind)                                                                      \
	for (const struct mig_kind *const *row = kinds + KINDS, *kind; row > kinds && (kind = *--row, 1);)

static struct mig_link *list_of(const struct mig_context *context, const struct mig_kind *kind)
{
	return (struct mig_link *)((char *)(uintptr_t)context + kind->list);
}

#define EACH_OBJECT(context, kind, object)                                                                 \
	for (struct mig_link *object = list_of(context, kind)->next; object != list_of(context, kind);      \
	     object = object->next)

void mig_kinds_init(struct mig_context *context)
{
	EACH_KIND(kind)
		mig_list_init(list_of(context, kind));
}

void mig_kinds_unlink(struct mig_context *context)
{
	EACH_KIND(kind) {
		struct mig_link *list = list_of(context, kind);

		while (list->next != list)
			mig_list_remove(list->next);
	}
}

void mig_kinds_count(const struct mig_context *context, struct mig_inventory *inventory)
{
	EACH_KIND(kind) {
		if (!kind->count)
			continue;
		EACH_OBJECT(context, kind, object)
			kind->count(object, inventory);
	}
}

int mig_kinds_make(struct mig_context *context, const char **what)
{
	EACH_KIND(kind) {
		int error = 0;

		*what = kind->name;
		EACH_OBJECT(context, kind, object)
			if ((error = kind->make(context, object))) {
				*what = kind->name_of ? kind->name_of(object) : kind->name;
				return error;
			}
		if (kind->made && (error = kind->made(context)))
			return error;
	}
	return 0;
}

void mig_kinds_give_up(struct mig_context *context)
{
	EACH_KIND_FROM_THE_LAST(kind)
		EACH_OBJECT(context, kind, object)
			kind->give_up(context, object);
}

int mig_kinds_begin_exchange(struct mig_context *context, struct mig_qp_name *which)
{
	EACH_KIND_FROM_THE_LAST(kind) {
		if (!kind->begin_exchange)
			continue;
		EACH_OBJECT(context, kind, object) {
			int error = kind->begin_exchange(context, object, which);

			if (error)
				return error;
		}
	}
	return 0;
}

void mig_kinds_exchange(struct mig_context *context)
{
	EACH_KIND(kind)
		EACH_OBJECT(context, kind, object)
			kind->exchange(context, object);
}

void mig_kinds_end(struct mig_context *context)
{
	EACH_KIND_FROM_THE_LAST(kind) {
		if (kind->end_all) {
			kind->end_all(context);
			continue;
		}
		EACH_OBJECT(context, kind, object)
			kind->end(object);
	}
}

void mig_kinds_forget(struct mig_context *context)
{
	EACH_KIND_FROM_THE_LAST(kind)
		EACH_OBJECT(context, kind, object)
			kind->forget(object);
}

void mig_kinds_close(struct mig_context *context)
{
	EACH_KIND(kind) {
		if (!kind->close)
			continue;
		EACH_OBJECT(context, kind, object)
			kind->close(object);
	}
}

int mig_kinds_park(struct mig_context *context)
{
	int error = 0;

	EACH_KIND_FROM_THE_LAST(kind) {
		if (!kind->park)
			continue;
		EACH_OBJECT(context, kind, object) {
			int failed = kind->park(object);

			error = error ? error : failed;
		}
	}
	return error;
}

int mig_kinds_unpark(struct mig_context *context, struct mig_qp_name *which)
{
	int error = 0;

	EACH_KIND_FROM_THE_LAST(kind) {
		if (!kind->unpark)
			continue;
		EACH_OBJECT(context, kind, object) {
			int failed = kind->unpark(object, which);

			error = error ? error : failed;
		}
	}
	return error;
}
