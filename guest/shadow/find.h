/* Objects by the numbers and names that others know them by. */
#ifndef MIGRRDMA_SHADOW_FIND_H
#define MIGRRDMA_SHADOW_FIND_H

#include "shadow/context.h"
#include "shadow/qp.h"

/* The shadow of a device that the application was given; NULL: it is the real library's own. */
struct mig_device *mig_device(const struct ibv_device *ibv);

/* NULL: there is none. The verb gate must be closed. */
struct mig_context *mig_context_by_id(uint32_t id);
struct mig_qp *mig_qp_by_name(uint32_t context, uint32_t vqpn);

/* The one behind which this real one is now, or NULL. */
struct mig_context *mig_context_by_real(const struct ibv_context *real);

/* Numbers of the application's port and GID table on the device of the moment, or on the next one; NULL: the same. */
const struct mig_gid_map *mig_gid_find(const struct mig_context *context, uint32_t port, uint32_t index);
const struct mig_gid_map *mig_next_gid(const struct mig_context *context, uint32_t port, uint32_t index);

/* Whether the objects behind `real` are there: not those of a process that was restored from a checkpoint. */
int mig_is_live(const struct mig_context *context);

/* Sets which QP a physical number means; page memory must be there, which is 0 or ENOMEM to reserve. */
int mig_qpn_reserve(struct mig_context *context, uint32_t pqpn);
void mig_qpn_set(struct mig_context *context, uint32_t pqpn, struct mig_qp *qp);

/* No number means any QP. The verb gate must be closed, and nobody be polling. */
void mig_qpn_clear(struct mig_context *context);

/* Has no number that any QP can have. */
extern const struct mig_qp mig_qp_none __attribute__((visibility("hidden")));
#define MIG_NO_QPN UINT32_MAX
/* With the number of a QP that receives from slots. Numbers have 24 bits. */
#define MIG_QPN_FROM_SLOTS 0x80000000u

/* In a new context no number means any QP. */
void mig_qpn_init(struct mig_context *context);

/* The one that a poller has most often: see `near` of what is found. In a section. */
static inline struct mig_qp *mig_qp_near(const struct mig_context *context, uint32_t pqpn)
{
	/* Written so that the place is one address for the compiler, with what stands before it in `context`. */
	const char *near_qps = (const char *)context + offsetof(struct mig_context, near_qps);

	return __atomic_load_n((struct mig_qp *const *)(const void *)(near_qps + (pqpn & 0xfff) * sizeof(struct mig_qp *)), __ATOMIC_CONSUME);
}

/* NULL: none of ours. In a section, or under the context's lock. */
static inline struct mig_qp *mig_qp_by_pqpn(const struct mig_context *context, uint32_t pqpn)
{
	struct mig_qp **page = __atomic_load_n(&context->qpns[(pqpn >> 12) & 0xfff], __ATOMIC_CONSUME);

	return page ? __atomic_load_n(&page[pqpn & 0xfff], __ATOMIC_CONSUME) : NULL;
}

#endif
