/*
 * What the libibverbs of this machine says to the commands that end objects, of a context whose descriptor is no device's any more:
 * one line for each, before and while it is told that the device is gone. Objects and context are made by hand, as there is no device.
 */
#define _GNU_SOURCE
#include "real/gone.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* As libibverbs' own headers have them, which are not installed: a public part in front, and what is zero here. */
union any {
	struct ibv_qp qp;
	struct ibv_cq cq;
	struct ibv_srq srq;
	struct ibv_mr mr;
	struct ibv_pd pd;
	struct ibv_mw mw;
	struct ibv_ah ah;
	struct ibv_dm dm;
	struct ibv_xrcd xrcd;
	char room[1024];
};

static union any object;

static const struct {
	const char *command;
	struct ibv_context **context;
} ends[] = {
	{ "ibv_cmd_destroy_qp", &object.qp.context },	{ "ibv_cmd_destroy_cq", &object.cq.context },
	{ "ibv_cmd_destroy_srq", &object.srq.context }, { "ibv_cmd_dereg_mr", &object.mr.context },
	{ "ibv_cmd_dealloc_pd", &object.pd.context },	{ "ibv_cmd_dealloc_mw", &object.mw.context },
	{ "ibv_cmd_destroy_ah", &object.ah.context },	{ "ibv_cmd_free_dm", &object.dm.context },
	{ "ibv_cmd_close_xrcd", &object.xrcd.context },
};

static void end_all(struct ibv_context *context)
{
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		int (*end)(void *) = (int (*)(void *))(uintptr_t)dlsym(RTLD_DEFAULT, ends[i].command);

		object = (union any){ .room = { 0 } };
		*ends[i].context = context;
		printf("%s %s\n", ends[i].command, !end ? "is not there" : end(&object) ? "refused" : "ended");
	}
}

int main(void)
{
	/* More than libibverbs has in front of a context and behind it, and of what it keeps for itself. */
	struct verbs_context *verbs = calloc(1, 1 << 16);
	struct mig_gone gone;
	int ends_of_pipe[2];

	if (!verbs || pipe(ends_of_pipe))
		return 1;
	verbs->sz = sizeof(*verbs);
	verbs->priv = calloc(1, 1 << 16);
	verbs->context.abi_compat = __VERBS_ABI_IS_EXTENDED;
	verbs->context.cmd_fd = ends_of_pipe[0];
	end_all(&verbs->context);
	if (mig_gone_begin(&gone, &verbs->context))
		return 1;
	end_all(&verbs->context);
	mig_gone_end(&gone);
	if (verbs->context.cmd_fd != ends_of_pipe[0])
		return 1;
	end_all(&verbs->context);
	return 0;
}
