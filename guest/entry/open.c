/* Where a context of ours begins and ends, and the child of a fork starts over. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/keymap.h"
#include "base/pages.h"
#include "base/section.h"
#include "base/verb_gate.h"
#include "control/thread.h"
#include "objects/device.h"
#include "objects/kinds.h"
#include "objects/operations.h"
#include "real/export.h"
#include "shadow/ah.h"
#include "shadow/find.h"
#include "shadow/marks.h"
#include "shadow/places.h"
#include "shadow/find.h"
#include "shadow/process.h"

/* In the child of a fork: its parent's objects are the parent's affair, as they are with libibverbs. */
static void start_over_after_fork(void)
{
	mig_sections_after_fork();
	mig_verb_gate_after_fork();
	mig.lock.word = 0;
	mig_list_init(&mig.contexts);
	mig_marks_after_fork();
	mig_ahs_after_fork();
	mig_places = NULL;
	mig.token = 0;
	mig.state = MIG_STATE_RUNNING;
	mig_thread_after_fork();
}

struct ibv_context *ibv_open_device(struct ibv_device *ibv)
{
	const struct mig_real *real = mig_real();
	int pid = getpid();

	if (!real)
		return NULL;
	if (mig.pid && mig.pid != pid)
		start_over_after_fork();

	struct mig_device *device = mig_device(ibv);
	if (!device)
		return real->ibv_open_device(ibv);

	MIG_VERB;
	struct mig_context *context = calloc(1, sizeof(*context));
	if (!context) {
		errno = ENOMEM;
		return NULL;
	}
	context->real = mig_open_by_name(device->real_name);
	if (!context->real) {
		free(context);
		return NULL;
	}
	int error = mig_relay_fd_open(&context->async, context->real->async_fd);
	if (error) {
		real->ibv_close_device(context->real);
		free(context);
		errno = error;
		return NULL;
	}
	context->device = device;
	context->verbs.sz = sizeof(context->verbs);
	context->verbs.context.abi_compat = __VERBS_ABI_IS_EXTENDED;
	context->verbs.context.device = ibv;
	context->verbs.context.cmd_fd = context->real->cmd_fd;
	context->verbs.context.async_fd = context->async.outer;
	context->verbs.context.num_comp_vectors = context->real->num_comp_vectors;
	mig_fill_operations(context);
	mig_kinds_init(context);
	mig_qpn_init(context);

	mig_lock(&mig.lock);
	mig.pid = pid;
	context->id = ++mig.next_context;
	mig_list_add(&mig.contexts, &context->link);
	mig_unlock(&mig.lock);

	if ((error = mig_sections_usable()))
		mig_cannot_quiesce("the kernel does not let the process use membarrier: %s", strerror(error));
	mig_thread_start();
	return &context->verbs.context;
}

int ibv_close_device(struct ibv_context *ibv)
{
	struct mig_context *context = mig_context(ibv);
	const struct mig_real *real = mig_real();

	MIG_VERB;
	struct mig_mark *marks = mig_marks_take(ibv);
	int error = real->ibv_close_device(context ? context->real : ibv);
	mig_marks_settle(marks, error);
	if (!context || error)
		return error;
	mig_lock(&mig.lock);
	mig_list_remove(&context->link);
	mig_unlock(&mig.lock);
	mig_marks_forget(context);
	mig_relay_fd_close(&context->async);
	mig_pages_free(context->owed);
	/* Shadows of objects that were left open stay: the application has no business with them any more. */
	MIG_EACH_OF(context, ahs, ah, mig_ah)
		mig_ah_remove(ah);
	mig_kinds_unlink(context);
	mig_numbers_free(&context->vqpns);
	mig_numbers_free(&context->vlkeys);
	mig_numbers_free(&context->vrkeys);
	mig_numbers_free(&context->spent_srqns);
	mig_keymap_free(context->lkeys);
	mig_keymap_free(context->spent_rkeys);
	free(context->mw_table);
	for (int i = 0; i < MIG_QPN_PAGE; i++)
		free(context->qpns[i]);
	free(context);
	return 0;
}

/* A device that came from another process: its objects are not known here. */
struct ibv_context *ibv_import_device(int fd)
{
	const struct mig_real *real = mig_real();

	if (!real || !real->ibv_import_device) {
		errno = ENOSYS;
		return NULL;
	}
	MIG_VERB;
	/* It lists the devices by the public function and looks inside them. */
	mig_inside_real++;
	struct ibv_context *context = real->ibv_import_device(fd);
	mig_inside_real--;
	if (context)
		mig_mark(NULL, context, "an imported device");
	return context;
}
