/*
 * What a libibverbs exports besides its verbs, so that whatever was linked against one is loaded: the verbs of binaries from
 * before 2008 (IBVERBS_1.0), and the interface to its providers (IBVERBS_PRIVATE_34). libmlx5 and libefa, which perftest is
 * linked against, name their driver in a constructor and are never asked for a context, as no device of theirs is here.
 * Whoever calls one of these all the same is told that it is not supported.
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

#include "export.h"

#define OLD_NUMBER(name)                                                                                   \
	EXPORT int old_##name(void);                                                                       \
	EXPORT int old_##name(void) { return ENOSYS; }                                                     \
	__asm__(".symver old_" #name "," #name "@IBVERBS_1.0");

#define OLD_POINTER(name)                                                                                  \
	EXPORT void *old_##name(void);                                                                     \
	EXPORT void *old_##name(void)                                                                      \
	{                                                                                                  \
		errno = ENOSYS;                                                                            \
		return NULL;                                                                               \
	}                                                                                                  \
	__asm__(".symver old_" #name "," #name "@IBVERBS_1.0");

OLD_POINTER(ibv_get_device_list)
OLD_POINTER(ibv_free_device_list)
OLD_POINTER(ibv_get_device_name)
OLD_NUMBER(ibv_get_device_guid)
OLD_POINTER(ibv_open_device)
OLD_NUMBER(ibv_close_device)
OLD_NUMBER(ibv_get_async_event)
OLD_NUMBER(ibv_ack_async_event)
OLD_NUMBER(ibv_query_device)
OLD_NUMBER(ibv_query_port)
OLD_NUMBER(ibv_query_gid)
OLD_NUMBER(ibv_query_pkey)
OLD_POINTER(ibv_alloc_pd)
OLD_NUMBER(ibv_dealloc_pd)
OLD_POINTER(ibv_reg_mr)
OLD_NUMBER(ibv_dereg_mr)
OLD_POINTER(ibv_create_cq)
OLD_NUMBER(ibv_resize_cq)
OLD_NUMBER(ibv_destroy_cq)
OLD_NUMBER(ibv_get_cq_event)
OLD_NUMBER(ibv_ack_cq_events)
OLD_POINTER(ibv_create_srq)
OLD_NUMBER(ibv_modify_srq)
OLD_NUMBER(ibv_query_srq)
OLD_NUMBER(ibv_destroy_srq)
OLD_POINTER(ibv_create_qp)
OLD_NUMBER(ibv_query_qp)
OLD_NUMBER(ibv_modify_qp)
OLD_NUMBER(ibv_destroy_qp)
OLD_POINTER(ibv_create_ah)
OLD_NUMBER(ibv_destroy_ah)
OLD_NUMBER(ibv_attach_mcast)
OLD_NUMBER(ibv_detach_mcast)

/* libibverbs has kept this one for binaries only. */
EXPORT void old_ibv_register_driver(void);
EXPORT void old_ibv_register_driver(void) {}
__asm__(".symver old_ibv_register_driver,ibv_register_driver@IBVERBS_1.1");

#define PROVIDER_NUMBER(name)                                                                              \
	EXPORT int name(void);                                                                             \
	EXPORT int name(void) { return EOPNOTSUPP; }

#define PROVIDER_POINTER(name)                                                                             \
	EXPORT void *name(void);                                                                           \
	EXPORT void *name(void)                                                                            \
	{                                                                                                  \
		errno = EOPNOTSUPP;                                                                        \
		return NULL;                                                                               \
	}

#define PROVIDER_NOTHING(name)                                                                             \
	EXPORT void name(void);                                                                            \
	EXPORT void name(void) {}

PROVIDER_NOTHING(verbs_register_driver_34)
PROVIDER_NOTHING(verbs_set_ops)
PROVIDER_NOTHING(verbs_uninit_context)
PROVIDER_NOTHING(__verbs_log)
PROVIDER_POINTER(_verbs_init_and_alloc_context)
PROVIDER_POINTER(verbs_open_device)
PROVIDER_NUMBER(__ioctl_final_num_attrs)
PROVIDER_NUMBER(execute_ioctl)
PROVIDER_NUMBER(verbs_init_cq)
PROVIDER_NUMBER(ibv_read_ibdev_sysfs_file)
PROVIDER_NUMBER(ibv_cmd_advise_mr)
PROVIDER_NUMBER(ibv_cmd_alloc_dm)
PROVIDER_NUMBER(ibv_cmd_alloc_mw)
PROVIDER_NUMBER(ibv_cmd_alloc_pd)
PROVIDER_NUMBER(ibv_cmd_attach_mcast)
PROVIDER_NUMBER(ibv_cmd_close_xrcd)
PROVIDER_NUMBER(ibv_cmd_create_ah)
PROVIDER_NUMBER(ibv_cmd_create_counters)
PROVIDER_NUMBER(ibv_cmd_create_cq)
PROVIDER_NUMBER(ibv_cmd_create_cq_ex)
PROVIDER_NUMBER(ibv_cmd_create_cq_ex2)
PROVIDER_NUMBER(ibv_cmd_create_flow)
PROVIDER_NUMBER(ibv_cmd_create_flow_action_esp)
PROVIDER_NUMBER(ibv_cmd_create_qp)
PROVIDER_NUMBER(ibv_cmd_create_qp_ex2)
PROVIDER_NUMBER(ibv_cmd_create_qp_ex)
PROVIDER_NUMBER(ibv_cmd_create_rwq_ind_table)
PROVIDER_NUMBER(ibv_cmd_create_srq)
PROVIDER_NUMBER(ibv_cmd_create_srq_ex)
PROVIDER_NUMBER(ibv_cmd_create_wq)
PROVIDER_NUMBER(ibv_cmd_dealloc_mw)
PROVIDER_NUMBER(ibv_cmd_dealloc_pd)
PROVIDER_NUMBER(ibv_cmd_dereg_mr)
PROVIDER_NUMBER(ibv_cmd_destroy_ah)
PROVIDER_NUMBER(ibv_cmd_destroy_counters)
PROVIDER_NUMBER(ibv_cmd_destroy_cq)
PROVIDER_NUMBER(ibv_cmd_destroy_flow)
PROVIDER_NUMBER(ibv_cmd_destroy_flow_action)
PROVIDER_NUMBER(ibv_cmd_destroy_qp)
PROVIDER_NUMBER(ibv_cmd_destroy_rwq_ind_table)
PROVIDER_NUMBER(ibv_cmd_destroy_srq)
PROVIDER_NUMBER(ibv_cmd_destroy_wq)
PROVIDER_NUMBER(ibv_cmd_detach_mcast)
PROVIDER_NUMBER(ibv_cmd_free_dm)
PROVIDER_NUMBER(ibv_cmd_get_context)
PROVIDER_NUMBER(ibv_cmd_modify_cq)
PROVIDER_NUMBER(ibv_cmd_modify_flow_action_esp)
PROVIDER_NUMBER(ibv_cmd_modify_qp)
PROVIDER_NUMBER(ibv_cmd_modify_qp_ex)
PROVIDER_NUMBER(ibv_cmd_modify_srq)
PROVIDER_NUMBER(ibv_cmd_modify_wq)
PROVIDER_NUMBER(ibv_cmd_open_qp)
PROVIDER_NUMBER(ibv_cmd_open_xrcd)
PROVIDER_NUMBER(ibv_cmd_poll_cq)
PROVIDER_NUMBER(ibv_cmd_post_recv)
PROVIDER_NUMBER(ibv_cmd_post_send)
PROVIDER_NUMBER(ibv_cmd_post_srq_recv)
PROVIDER_NUMBER(ibv_cmd_query_context)
PROVIDER_NUMBER(ibv_cmd_query_device_any)
PROVIDER_NUMBER(ibv_cmd_query_mr)
PROVIDER_NUMBER(ibv_cmd_query_port)
PROVIDER_NUMBER(ibv_cmd_query_qp)
PROVIDER_NUMBER(ibv_cmd_query_srq)
PROVIDER_NUMBER(ibv_cmd_read_counters)
PROVIDER_NUMBER(ibv_cmd_reg_dm_mr)
PROVIDER_NUMBER(ibv_cmd_reg_dmabuf_mr)
PROVIDER_NUMBER(ibv_cmd_reg_mr)
PROVIDER_NUMBER(ibv_cmd_req_notify_cq)
PROVIDER_NUMBER(ibv_cmd_rereg_mr)
PROVIDER_NUMBER(ibv_cmd_resize_cq)

EXPORT extern bool verbs_allow_disassociate_destroy;
EXPORT bool verbs_allow_disassociate_destroy;
