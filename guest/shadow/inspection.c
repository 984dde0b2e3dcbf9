/*
 * What somebody who looks into the process from outside has to know (migrrdma_runtime/inspection/): where things are, by
 * name, so that no other file has to know the layout. It is found in the library's data by its first words and by its
 * own address behind them. Nothing in the process reads it.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/section.h"
#include "shadow/process.h"
#include "shadow/qp.h"
#include "shadow/reach.h"

#define ADDRESS(of) ((uintptr_t) & (of))
#define IN_PROCESS(member) offsetof(struct mig_process, member)
#define IN_CONTEXT(member) offsetof(struct mig_context, member)
#define IN_QP(member) offsetof(struct mig_qp, member)
#define IN_SECTION(member) offsetof(struct mig_section, member)

/* Addresses, places of members in their structures, and sizes. A name that is not there is not asked for. */
#define PLACES(X)                                                                                          \
	X("process", ADDRESS(mig))                                                                         \
	X("process.contexts", IN_PROCESS(contexts))                                                        \
	X("process.state", IN_PROCESS(state))                                                              \
	X("process.reasons", IN_PROCESS(reasons))                                                          \
	X("process.reason", IN_PROCESS(reason))                                                            \
	X("reason.size", MIG_TEXT)                                                                         \
	X("context.link", IN_CONTEXT(link))                                                                \
	X("context.id", IN_CONTEXT(id))                                                                    \
	X("context.device", IN_CONTEXT(verbs.context.device))                                              \
	X("context.parked", IN_CONTEXT(parked))                                                            \
	X("context.qps", IN_CONTEXT(qps))                                                                  \
	X("device.name", offsetof(struct ibv_device, name))                                                \
	X("qp.link", IN_QP(link))                                                                          \
	X("qp.number", IN_QP(ibv.qp_num))                                                                  \
	X("qp.state", IN_QP(ibv.state))                                                                    \
	X("qp.peer", IN_QP(dest_pqpn))                                                                     \
	X("qp.quiesced", IN_QP(quiesced))                                                                  \
	X("qp.marker", IN_QP(marker))                                                                      \
	X("qp.broken", IN_QP(broken))                                                                      \
	X("qp.kept", IN_QP(kept_count))                                                                    \
	X("qp.receives.head", IN_QP(head))                                                                 \
	X("qp.receives.at", IN_QP(at))                                                                     \
	X("qp.receives.stop", IN_QP(stop))                                                                 \
	X("qp.receives.until", IN_QP(until))                                                               \
	X("qp.receives.stride", IN_QP(stride))                                                             \
	X("reach.count", ADDRESS(mig_reach.count))                                                         \
	X("reach.pieces", ADDRESS(mig_reach.pieces))                                                       \
	X("reach.most", MIG_REACH_PIECES)                                                                  \
	X("sections", ADDRESS(mig_sections))                                                               \
	X("section.next", IN_SECTION(next))                                                                \
	X("section.taken", IN_SECTION(taken))                                                              \
	X("section.inside", IN_SECTION(inside))                                                            \
	X("section.tid", IN_SECTION(tid))                                                                  \
	X("section.verb", IN_SECTION(verb))                                                                \
	X("section.since_ns", IN_SECTION(since_ns))                                                        \
	X("section.waits", IN_SECTION(waits))

#define PLACE(name, value) { name, value },
#define COUNT(name, value) +1

static struct mig_inspection {
	char words[24];
	const void *self;
	uint32_t version, count;
	struct {
		char name[24];
		uint64_t value;
	} places[PLACES(COUNT)];
} inspection __attribute__((used)) = { "migrrdma inspection", &inspection, 1, PLACES(COUNT), { PLACES(PLACE) } };
