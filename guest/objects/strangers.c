/*
 * Verbs that are newer than this library. What they take is not known, but for this: an object is handed over by its address. So
 * each of them leads to an entrance here, which looks at the six arguments in registers, puts the real object in the place of one
 * of ours, and calls it with that and with whatever else there was. The object is marked: it may have become what it cannot
 * be moved as. An object of ours inside a structure is not seen.
 */
#include "objects/strangers.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/lock.h"
#include "base/log.h"
#include "base/redirect.h"
#include "base/verb_gate.h"
#include "shadow/ah.h"
#include "shadow/channel.h"
#include "shadow/cq.h"
#include "shadow/dm.h"
#include "shadow/find.h"
#include "shadow/marks.h"
#include "shadow/mr.h"
#include "shadow/mw.h"
#include "shadow/pd.h"
#include "shadow/process.h"
#include "shadow/qp.h"
#include "shadow/srq.h"
#include "shadow/td.h"
#include "shadow/xrcd.h"

#define ARGUMENTS 6

/* On the stack of the entrance, which knows where its members are. */
struct stranger_call {
	uint64_t arguments[ARGUMENTS];
	uint64_t vector_registers; /* in use, of a function with any number of arguments */
	struct ibv_device **list;  /* of which one was handed over */
};
_Static_assert(sizeof(struct stranger_call) == 64, "as the entrance has it");

static struct {
	const void *real;
	const char *name;
	char why[MIG_TEXT];
} strangers[MIG_STRANGERS];

const void *mig_stranger_begins(struct stranger_call *call, uint64_t number);
void mig_stranger_has_ended(struct stranger_call *call);

#if defined(__x86_64__)
/* Of 16 bytes each: its number, and on to what they share. */
extern const char mig_stranger_entrances[];
_Static_assert(MIG_STRANGERS == 64, "as many entrances");

/*
 * Whatever was passed in registers is passed on, and of what was passed on the stack so much as any verb has. The stack is aligned: on
 * the way in it lacks 8 bytes of that, the number and %rbp are 16, and the room is 200.
 */
__asm__(".pushsection .text\n"
	"	.balign 16\n"
	"	.globl mig_stranger_entrances\n"
	"	.hidden mig_stranger_entrances\n"
	"	.type mig_stranger_entrances, @function\n"
	"mig_stranger_entrances:\n"
	"	.set number, 0\n"
	"	.rept 64\n"
	"	endbr64\n"
	"	pushq $number\n"
	"	jmp 1f\n"
	"	.balign 16\n"
	"	.set number, number + 1\n"
	"	.endr\n"
	"1:	pushq %rbp\n"
	"	movq %rsp, %rbp\n"
	"	subq $200, %rsp\n"
	"	movups %xmm0, 0(%rsp)\n"
	"	movups %xmm1, 16(%rsp)\n"
	"	movups %xmm2, 32(%rsp)\n"
	"	movups %xmm3, 48(%rsp)\n"
	"	movups %xmm4, 64(%rsp)\n"
	"	movups %xmm5, 80(%rsp)\n"
	"	movups %xmm6, 96(%rsp)\n"
	"	movups %xmm7, 112(%rsp)\n"
	"	movq %rdi, 128(%rsp)\n"
	"	movq %rsi, 136(%rsp)\n"
	"	movq %rdx, 144(%rsp)\n"
	"	movq %rcx, 152(%rsp)\n"
	"	movq %r8, 160(%rsp)\n"
	"	movq %r9, 168(%rsp)\n"
	"	movq %rax, 176(%rsp)\n"
	"	leaq 128(%rsp), %rdi\n"
	"	movq 8(%rbp), %rsi\n"
	"	call mig_stranger_begins\n"
	"	movq %rax, %r11\n"
	"	movups 0(%rsp), %xmm0\n"
	"	movups 16(%rsp), %xmm1\n"
	"	movups 32(%rsp), %xmm2\n"
	"	movups 48(%rsp), %xmm3\n"
	"	movups 64(%rsp), %xmm4\n"
	"	movups 80(%rsp), %xmm5\n"
	"	movups 96(%rsp), %xmm6\n"
	"	movups 112(%rsp), %xmm7\n"
	"	movq 128(%rsp), %rdi\n"
	"	movq 136(%rsp), %rsi\n"
	"	movq 144(%rsp), %rdx\n"
	"	movq 152(%rsp), %rcx\n"
	"	movq 160(%rsp), %r8\n"
	"	movq 168(%rsp), %r9\n"
	"	movq 176(%rsp), %rax\n"
	"	subq $64, %rsp\n"
	"	.set number, 0\n"
	"	.rept 8\n"
	"	movq 24 + 8 * number(%rbp), %r10\n"
	"	movq %r10, 8 * number(%rsp)\n"
	"	.set number, number + 1\n"
	"	.endr\n"
	"	call *%r11\n"
	"	addq $64, %rsp\n"
	"	movups %xmm0, 0(%rsp)\n"
	"	movups %xmm1, 16(%rsp)\n"
	"	movq %rax, 128(%rsp)\n"
	"	movq %rdx, 136(%rsp)\n"
	"	leaq 128(%rsp), %rdi\n"
	"	call mig_stranger_has_ended\n"
	"	movups 0(%rsp), %xmm0\n"
	"	movups 16(%rsp), %xmm1\n"
	"	movq 128(%rsp), %rax\n"
	"	movq 136(%rsp), %rdx\n"
	"	movq %rbp, %rsp\n"
	"	popq %rbp\n"
	"	addq $8, %rsp\n"
	"	ret\n"
	"	.size mig_stranger_entrances, . - mig_stranger_entrances\n"
	"	.popsection\n");

static const void *entrance(uint32_t number)
{
	return mig_stranger_entrances + (size_t)16 * number;
}
#else
static const void *entrance(uint32_t number)
{
	(void)number;
	return NULL;
}
#endif

/* The real one of an object of this context, or NULL. The context's lock is held. */
static void *real_of_object(const struct mig_context *context, const void *object)
{
	if (object == &context->verbs.context)
		return context->real;
#define LOOK_AMONG(list, type)                                                                             \
	MIG_EACH(&context->list, one, struct type, link)                                                   \
		if (object == &one->ibv)                                                                   \
			return one->real;
	LOOK_AMONG(qps, mig_qp)
	LOOK_AMONG(cqs, mig_cq)
	LOOK_AMONG(srqs, mig_srq)
	LOOK_AMONG(xrcds, mig_xrcd)
	LOOK_AMONG(pds, mig_pd)
	LOOK_AMONG(parent_domains, mig_pd)
	LOOK_AMONG(channels, mig_channel)
	LOOK_AMONG(mws, mig_mw)
	LOOK_AMONG(tds, mig_td)
	LOOK_AMONG(dms, mig_dm)
	LOOK_AMONG(mrs, mig_mr)
#undef LOOK_AMONG
	return NULL;
}

static void *real_of(const void *object, struct mig_context **whose)
{
	const struct mig_ah *ah = mig_ah_find(object);
	void *real = NULL;

	if (ah) {
		*whose = ah->context;
		return ah->real;
	}
	MIG_LOCKED(&mig.lock);
	MIG_EACH_CONTEXT(context) {
		MIG_LOCKED(&context->lock);
		real = real_of_object(context, object);
		if (real) {
			*whose = context;
			break;
		}
	}
	return real;
}

/* As the device is called now; the list lives for as long as the call. */
static struct ibv_device *real_device(struct stranger_call *call, const struct mig_device *device)
{
	if (!call->list)
		call->list = mig_real()->ibv_get_device_list(NULL);
	for (int i = 0; call->list && call->list[i]; i++)
		if (!strcmp(call->list[i]->name, device->real_name))
			return call->list[i];
	return NULL;
}

static void exchange(struct stranger_call *call, uint64_t *argument, const char *why)
{
	void *object = (void *)(uintptr_t)*argument, *real;
	struct mig_context *context = NULL;
	const struct mig_device *device;

	/* No address of an object. */
	if (*argument < 4096 || *argument % sizeof(void *))
		return;
	if ((real = real_of(object, &context))) {
		mig_mark(context, object, why);
		*argument = (uintptr_t)real;
	} else if ((device = mig_device(object))) {
		/* Nobody knows what comes of it. */
		mig_cannot_migrate("%s", why);
		*argument = (uintptr_t)real_device(call, device);
	}
}

const void *mig_stranger_begins(struct stranger_call *call, uint64_t number)
{
	int before = errno;

	call->list = NULL;
	mig_verb_gate_enter(strangers[number].name);
	for (int i = 0; i < ARGUMENTS; i++)
		exchange(call, &call->arguments[i], strangers[number].why);
	/* It lists the devices by the public function and looks inside them. */
	mig_inside_real++;
	errno = before;
	return strangers[number].real;
}

void mig_stranger_has_ended(struct stranger_call *call)
{
	int before = errno;

	mig_inside_real--;
	if (call->list)
		mig_real()->ibv_free_device_list(call->list);
	mig_verb_gate_leave(NULL);
	errno = before;
}

static int interpose(const struct mig_real *real)
{
	if (real->stranger_count > MIG_STRANGERS || !entrance(0))
		return ENOTSUP;
	for (uint32_t i = 0; i < real->stranger_count; i++) {
		const char *name = real->strangers[i];

		strangers[i].real = mig_elf_symbol(&real->library, name, NULL);
		strangers[i].name = name;
		snprintf(strangers[i].why, sizeof(strangers[i].why), "what was handed to %.60s, which the guest library does not know",
			 name);
		int error = strangers[i].real ? mig_redirect(&real->library, name, strangers[i].real, entrance(i)) : ENOENT;
		if (error)
			return error;
		mig_log(MIG_LOG_WARN, "%s exports %s, which this guest library does not know: what is handed to it cannot be moved",
			real->library.name, name);
	}
	return 0;
}

int mig_strangers_interpose(const struct mig_real *real)
{
	static struct mig_lock lock;
	static int is_done, result;

	MIG_LOCKED(&lock);
	if (!is_done)
		result = interpose(real);
	is_done = 1;
	if (result)
		mig_log(MIG_LOG_WARN, "%s exports %s, which this guest library does not know: not virtualised", real->library.name,
			real->strangers[0]);
	return result;
}
