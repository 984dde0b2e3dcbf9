/* The container's own libibverbs. */
#ifndef MIGRRDMA_REAL_H
#define MIGRRDMA_REAL_H

#include <infiniband/verbs.h>
#include <sys/types.h>

#include "base/elf.h"

/* verbs.h puts inline functions of the same names before these. */
#undef ibv_query_port
#undef ibv_reg_mr
#undef ibv_reg_mr_iova

struct ibv_mr_init_attr;
struct ibv_dmah;
struct ibv_dmah_init_attr;
struct ibv_buf;
struct ibv_comp_cntr;
struct ibv_comp_cntr_caps;
struct ibv_comp_cntr_init_attr;
struct ibv_qp_attach_comp_cntr_attr;

/*
 * X(result, name, version, parameters): every public function that may be given one of our objects. Each has
 * a function of ours in front. A function of a version that the container's library does not have stays NULL.
 */
#define MIG_REAL(X)                                                                                          \
	X(struct ibv_device **, ibv_get_device_list, "IBVERBS_1.1", (int *))                                 \
	X(void, ibv_free_device_list, "IBVERBS_1.1", (struct ibv_device **))                                 \
	X(const char *, ibv_get_device_name, "IBVERBS_1.1", (struct ibv_device *))                           \
	X(__be64, ibv_get_device_guid, "IBVERBS_1.1", (struct ibv_device *))                                 \
	X(int, ibv_get_device_index, "IBVERBS_1.9", (struct ibv_device *))                                   \
	X(struct ibv_context *, ibv_open_device, "IBVERBS_1.1", (struct ibv_device *))                       \
	X(int, ibv_close_device, "IBVERBS_1.1", (struct ibv_context *))                                      \
	X(struct ibv_context *, ibv_import_device, "IBVERBS_1.10", (int))                                    \
	X(int, ibv_get_async_event, "IBVERBS_1.1", (struct ibv_context *, struct ibv_async_event *))         \
	X(void, ibv_ack_async_event, "IBVERBS_1.1", (struct ibv_async_event *))                              \
	X(int, ibv_query_device, "IBVERBS_1.1", (struct ibv_context *, struct ibv_device_attr *))            \
	X(int, ibv_query_port, "IBVERBS_1.1", (struct ibv_context *, uint8_t, struct _compat_ibv_port_attr *)) \
	X(int, ibv_query_gid, "IBVERBS_1.1", (struct ibv_context *, uint8_t, int, union ibv_gid *))          \
	X(int, _ibv_query_gid_ex, "IBVERBS_1.11",                                                            \
	  (struct ibv_context *, uint32_t, uint32_t, struct ibv_gid_entry *, uint32_t, size_t))              \
	X(ssize_t, _ibv_query_gid_table, "IBVERBS_1.11",                                                     \
	  (struct ibv_context *, struct ibv_gid_entry *, size_t, uint32_t, size_t))                          \
	X(int, ibv_query_gid_type, NULL, (struct ibv_context *, uint8_t, unsigned int, int *))               \
	X(int, ibv_query_pkey, "IBVERBS_1.1", (struct ibv_context *, uint8_t, int, __be16 *))                \
	X(int, ibv_get_pkey_index, "IBVERBS_1.5", (struct ibv_context *, uint8_t, __be16))                   \
	X(int, ibv_query_port_speed, "IBVERBS_1.16", (struct ibv_context *, uint32_t, uint64_t *))           \
	X(struct ibv_pd *, ibv_alloc_pd, "IBVERBS_1.1", (struct ibv_context *))                              \
	X(int, ibv_dealloc_pd, "IBVERBS_1.1", (struct ibv_pd *))                                             \
	X(struct ibv_pd *, ibv_import_pd, "IBVERBS_1.10", (struct ibv_context *, uint32_t))                  \
	X(struct ibv_mr *, ibv_reg_mr, "IBVERBS_1.1", (struct ibv_pd *, void *, size_t, int))                \
	X(struct ibv_mr *, ibv_reg_mr_iova, "IBVERBS_1.7", (struct ibv_pd *, void *, size_t, uint64_t, int)) \
	X(struct ibv_mr *, ibv_reg_mr_iova2, "IBVERBS_1.8",                                                  \
	  (struct ibv_pd *, void *, size_t, uint64_t, unsigned int))                                         \
	X(struct ibv_mr *, ibv_reg_dmabuf_mr, "IBVERBS_1.12",                                                \
	  (struct ibv_pd *, uint64_t, size_t, uint64_t, int, int))                                           \
	X(struct ibv_mr *, ibv_reg_mr_ex, "IBVERBS_1.15", (struct ibv_pd *, struct ibv_mr_init_attr *))      \
	X(struct ibv_dmah *, ibv_alloc_dmah, "IBVERBS_1.15",                                                 \
	  (struct ibv_context *, struct ibv_dmah_init_attr *))                                               \
	X(void *, ibv_alloc_buf, "IBVERBS_1.17", (struct ibv_pd *, size_t, struct ibv_buf **))               \
	X(struct ibv_mr *, ibv_reg_buf_mr, "IBVERBS_1.17",                                                   \
	  (struct ibv_pd *, struct ibv_buf *, void *, size_t, int))                                          \
	X(int, ibv_rereg_mr, "IBVERBS_1.1", (struct ibv_mr *, int, struct ibv_pd *, void *, size_t, int))    \
	X(int, ibv_dereg_mr, "IBVERBS_1.1", (struct ibv_mr *))                                               \
	X(struct ibv_mr *, ibv_import_mr, "IBVERBS_1.10", (struct ibv_pd *, uint32_t))                       \
	X(struct ibv_dm *, ibv_import_dm, "IBVERBS_1.13", (struct ibv_context *, uint32_t))                  \
	X(struct ibv_comp_channel *, ibv_create_comp_channel, "IBVERBS_1.0", (struct ibv_context *))         \
	X(int, ibv_destroy_comp_channel, "IBVERBS_1.0", (struct ibv_comp_channel *))                         \
	X(struct ibv_cq *, ibv_create_cq, "IBVERBS_1.1",                                                     \
	  (struct ibv_context *, int, void *, struct ibv_comp_channel *, int))                               \
	X(int, ibv_resize_cq, "IBVERBS_1.1", (struct ibv_cq *, int))                                         \
	X(int, ibv_destroy_cq, "IBVERBS_1.1", (struct ibv_cq *))                                             \
	X(int, ibv_get_cq_event, "IBVERBS_1.1", (struct ibv_comp_channel *, struct ibv_cq **, void **))      \
	X(void, ibv_ack_cq_events, "IBVERBS_1.1", (struct ibv_cq *, unsigned int))                           \
	X(struct ibv_srq *, ibv_create_srq, "IBVERBS_1.1", (struct ibv_pd *, struct ibv_srq_init_attr *))    \
	X(struct ibv_qp *, ibv_create_qp, "IBVERBS_1.1", (struct ibv_pd *, struct ibv_qp_init_attr *))       \
	X(struct ibv_qp_ex *, ibv_qp_to_qp_ex, "IBVERBS_1.6", (struct ibv_qp *))                             \
	X(int, ibv_query_qp, "IBVERBS_1.1",                                                                  \
	  (struct ibv_qp *, struct ibv_qp_attr *, int, struct ibv_qp_init_attr *))                           \
	X(int, ibv_query_qp_data_in_order, "IBVERBS_1.14", (struct ibv_qp *, enum ibv_wr_opcode, uint32_t))  \
	X(int, ibv_modify_qp, "IBVERBS_1.1", (struct ibv_qp *, struct ibv_qp_attr *, int))                   \
	X(int, ibv_destroy_qp, "IBVERBS_1.1", (struct ibv_qp *))                                             \
	X(int, ibv_set_ece, "IBVERBS_1.10", (struct ibv_qp *, struct ibv_ece *))                             \
	X(int, ibv_query_ece, "IBVERBS_1.10", (struct ibv_qp *, struct ibv_ece *))                           \
	X(struct ibv_ah *, ibv_create_ah, "IBVERBS_1.1", (struct ibv_pd *, struct ibv_ah_attr *))            \
	X(struct ibv_ah *, ibv_create_ah_from_wc, "IBVERBS_1.1",                                             \
	  (struct ibv_pd *, struct ibv_wc *, struct ibv_grh *, uint8_t))                                     \
	X(int, ibv_init_ah_from_wc, "IBVERBS_1.1",                                                           \
	  (struct ibv_context *, uint8_t, struct ibv_wc *, struct ibv_grh *, struct ibv_ah_attr *))          \
	X(int, ibv_resolve_eth_l2_from_gid, "IBVERBS_1.1",                                                   \
	  (struct ibv_context *, struct ibv_ah_attr *, uint8_t[6], uint16_t *))                               \
	X(int, _ibv_query_comp_cntr_caps, "IBVERBS_1.18",                                                  \
	  (struct ibv_context *, struct ibv_comp_cntr_caps *, size_t))                                     \
	X(struct ibv_comp_cntr *, ibv_create_comp_cntr, "IBVERBS_1.18",                                    \
	  (struct ibv_context *, struct ibv_comp_cntr_init_attr *))                                        \
	X(int, ibv_destroy_comp_cntr, "IBVERBS_1.18", (struct ibv_comp_cntr *))                            \
	X(int, ibv_qp_attach_comp_cntr, "IBVERBS_1.18",                                                    \
	  (struct ibv_qp *, struct ibv_comp_cntr *, struct ibv_qp_attach_comp_cntr_attr *))                \
	X(int, ibv_dealloc_dmah, "IBVERBS_1.15", (struct ibv_dmah *))                                        \
	X(void, ibv_free_buf, "IBVERBS_1.17", (struct ibv_buf *))                                            \
	X(void, ibv_unimport_dm, "IBVERBS_1.13", (struct ibv_dm *))                                          \
	X(void, ibv_unimport_mr, "IBVERBS_1.10", (struct ibv_mr *))                                          \
	X(void, ibv_unimport_pd, "IBVERBS_1.10", (struct ibv_pd *))                                          \
	X(int, ibv_destroy_ah, "IBVERBS_1.1", (struct ibv_ah *))                                             \
	X(int, ibv_destroy_srq, "IBVERBS_1.1", (struct ibv_srq *))                                           \
	X(int, ibv_modify_srq, "IBVERBS_1.1", (struct ibv_srq *, struct ibv_srq_attr *, int))                \
	X(int, ibv_query_srq, "IBVERBS_1.1", (struct ibv_srq *, struct ibv_srq_attr *))                      \
	X(int, ibv_attach_mcast, "IBVERBS_1.1", (struct ibv_qp *, const union ibv_gid *, uint16_t))          \
	X(int, ibv_detach_mcast, "IBVERBS_1.1", (struct ibv_qp *, const union ibv_gid *, uint16_t))

#define MIG_STRANGERS 64

#define MIG_REAL_MEMBER(result, name, version, parameters) result(*name) parameters;
struct mig_real {
	MIG_REAL(MIG_REAL_MEMBER)
	int (*dofork_range)(void *addr, size_t length);
	struct mig_elf library;
	/* The verbs that it exports and we do not know, which might be handed our objects; of more than there is room for some. */
	const char *strangers[MIG_STRANGERS];
	uint32_t stranger_count;
};

/*
 * NULL with errno ENOSYS when the process has not loaded libibverbs. A Python wheel brings one of its own, with another
 * name; where there are several, the one that has the usual name serves all.
 */
const struct mig_real *mig_real(void);
int mig_is_libibverbs(const struct mig_elf *object);

/* True while this thread is inside a real function that calls other verbs and must get the real ones' objects. */
extern __thread int mig_inside_real;

#endif
