/* Vendors' direct interfaces: "not supported", and applications fall back to verbs. */
#include <errno.h>

#include "entry/vendor.h"

static void *none(void)
{
	errno = EOPNOTSUPP;
	return NULL;
}

_Bool mlx5dv_is_supported(void) { return 0; }
void *mlx5dv_open_device(void) { return none(); }
int mlx5dv_query_device(void) { return EOPNOTSUPP; }
int mlx5dv_init_obj(void) { return EOPNOTSUPP; }
int mlx5dv_set_context_attr(void) { return EOPNOTSUPP; }
int mlx5dv_get_clock_info(void) { return EOPNOTSUPP; }
void *mlx5dv_create_cq(void) { return none(); }
void *mlx5dv_create_qp(void) { return none(); }
void *mlx5dv_create_wq(void) { return none(); }
int efadv_query_device(void) { return EOPNOTSUPP; }
void *efadv_create_driver_qp(void) { return none(); }
void *efadv_create_qp_ex(void) { return none(); }
void *efadv_create_cq(void) { return none(); }
int mlx4dv_init_obj(void) { return EOPNOTSUPP; }
int mlx4dv_query_device(void) { return EOPNOTSUPP; }
int mlx4dv_set_context_attr(void) { return EOPNOTSUPP; }
void *mlx4dv_create_qp(void) { return none(); }
_Bool hnsdv_is_supported(void) { return 0; }
int hnsdv_query_device(void) { return EOPNOTSUPP; }
void *hnsdv_create_qp(void) { return none(); }
int manadv_init_obj(void) { return EOPNOTSUPP; }
int manadv_set_context_attr(void) { return EOPNOTSUPP; }
void *manadv_alloc_pd(void) { return none(); }
void *bnxt_re_dv_alloc_db_region(void) { return none(); }
int bnxt_re_dv_get_default_db_region(void) { return EOPNOTSUPP; }
_Bool ionic_dv_is_ionic_ctx(void) { return 0; }
_Bool ionic_dv_is_ionic_pd(void) { return 0; }
int ionic_dv_pd_set_udma_mask(void) { return EOPNOTSUPP; }
int ionic_dv_pd_set_sqcmb(void) { return EOPNOTSUPP; }
int ionic_dv_pd_set_rqcmb(void) { return EOPNOTSUPP; }
