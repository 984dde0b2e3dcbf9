#include "objects/ends.h"

#include <errno.h>

#include "base/verb_gate.h"
#include "shadow/find.h"
#include "shadow/marks.h"

/* The marks are taken before the object ends, as another thread may be given the same address then. */
#define END(operation, type)                                                                               \
	static int end_by_##operation(struct type *object)                                                 \
	{                                                                                                  \
		MIG_VERB_AS("ibv_" #operation);                                                            \
		struct mig_context *context = mig_context_by_real(object->context);                        \
		if (!context || !context->ends.operation)                                                  \
			return EOPNOTSUPP;                                                                 \
		struct mig_mark *marks = mig_marks_take(object);                                           \
		int error = context->ends.operation(object);                                               \
		mig_marks_settle(marks, error);                                                            \
		return error;                                                                              \
	}
MIG_ENDS(END)

void mig_ends_watch(struct mig_context *context)
{
	struct verbs_context *real = verbs_get_ctx(context->real);

	context->ends = (struct mig_ends){ 0 };
#define WATCH(operation, type)                                                                             \
	if (verbs_get_ctx_op(context->real, operation)) {                                                  \
		context->ends.operation = real->operation;                                                 \
		real->operation = end_by_##operation;                                                      \
	}
	MIG_ENDS(WATCH)
	/* Programs built against libibverbs 1.1.8 look here. */
	if (verbs_get_ctx_op(context->real, ibv_destroy_flow))
		real->ABI_placeholder2 = (void (*)(void))real->ibv_destroy_flow;
}
