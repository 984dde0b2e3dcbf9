/* The vendors' direct interfaces. */
#ifndef MIGRRDMA_ENTRY_VENDOR_H
#define MIGRRDMA_ENTRY_VENDOR_H

#include "real/export.h"

/*
 * X(result, name): where programs enter the vendors' direct interfaces, which reach around the verbs and would
 * take our objects for the driver's own. They say "not supported" (vendor.c). Only the entrances: the drivers
 * call some of the functions behind them themselves.
 */
#define MIG_VENDOR(X)                                                                                      \
	X(_Bool, mlx5dv_is_supported)                                                                      \
	X(void *, mlx5dv_open_device)                                                                      \
	X(int, mlx5dv_query_device)                                                                        \
	X(int, mlx5dv_init_obj)                                                                            \
	X(int, mlx5dv_set_context_attr)                                                                    \
	X(int, mlx5dv_get_clock_info)                                                                      \
	X(void *, mlx5dv_create_cq)                                                                        \
	X(void *, mlx5dv_create_qp)                                                                        \
	X(void *, mlx5dv_create_wq)                                                                        \
	X(int, efadv_query_device)                                                                         \
	X(void *, efadv_create_driver_qp)                                                                  \
	X(void *, efadv_create_qp_ex)                                                                      \
	X(void *, efadv_create_cq)                                                                         \
	X(int, mlx4dv_init_obj)                                                                            \
	X(int, mlx4dv_query_device)                                                                        \
	X(int, mlx4dv_set_context_attr)                                                                    \
	X(void *, mlx4dv_create_qp)                                                                        \
	X(_Bool, hnsdv_is_supported)                                                                       \
	X(int, hnsdv_query_device)                                                                         \
	X(void *, hnsdv_create_qp)                                                                         \
	X(int, manadv_init_obj)                                                                            \
	X(int, manadv_set_context_attr)                                                                    \
	X(void *, manadv_alloc_pd)                                                                         \
	X(void *, bnxt_re_dv_alloc_db_region)                                                              \
	X(int, bnxt_re_dv_get_default_db_region)                                                           \
	X(_Bool, ionic_dv_is_ionic_ctx)                                                                    \
	X(_Bool, ionic_dv_is_ionic_pd)                                                                     \
	X(int, ionic_dv_pd_set_udma_mask)                                                                  \
	X(int, ionic_dv_pd_set_sqcmb)                                                                      \
	X(int, ionic_dv_pd_set_rqcmb)

#define MIG_DECLARE_VENDOR(result, name) MIG_EXPORT result name(void);
MIG_VENDOR(MIG_DECLARE_VENDOR)

#endif
