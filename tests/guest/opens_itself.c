/* An application that looks the verbs up itself, as NCCL and UCX do. The exit code says which step went wrong. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ibv_device;

int main(void)
{
	void *before = dlsym(RTLD_DEFAULT, "ibv_open_device");
	void *handle = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!handle)
		return 1;
	struct ibv_device **(*list)(int *) = dlvsym(handle, "ibv_get_device_list", "IBVERBS_1.1");
	void *(*open)(void *) = dlvsym(handle, "ibv_open_device", "IBVERBS_1.1");
	int (*close)(void *) = dlsym(handle, "ibv_close_device");
	if (!list || (void *)open != before || !close)
		return 2;
	/* What we do not define is the real library's, and what nobody has stays unknown. */
	if (!dlsym(handle, "ibv_wc_status_str") || dlsym(handle, "ibv_no_such_verb") ||
	    dlvsym(handle, "ibv_open_device", "IBVERBS_9.9"))
		return 3;
	/* The vendors' own ways in, which other libraries have, say that they do not work here. */
	const char *const none[] = { "mlx5dv_open_device", "mlx5dv_create_qp", "mlx4dv_create_qp", "hnsdv_create_qp", "efadv_create_cq",
				     "manadv_alloc_pd", "bnxt_re_dv_alloc_db_region" };
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		void *(*create)(void) = dlsym(RTLD_DEFAULT, none[i]);

		errno = 0;
		if (!create || create() || errno != EOPNOTSUPP)
			return 5;
	}
	const char *const refused[] = { "mlx4dv_init_obj", "mlx4dv_query_device", "mlx4dv_set_context_attr",
					"hnsdv_query_device", "manadv_init_obj", "manadv_set_context_attr",
					"bnxt_re_dv_get_default_db_region", "ionic_dv_pd_set_udma_mask" };
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		int (*refuse)(void) = dlsym(RTLD_DEFAULT, refused[i]);

		if (!refuse || refuse() != EOPNOTSUPP)
			return 6;
	}
	/* Also to who looks into the vendor's library itself. */
	void *vendor = dlopen("libmlx4.so.1", RTLD_LAZY | RTLD_LOCAL);
	int (*init_obj)(void) = vendor ? dlsym(vendor, "mlx4dv_init_obj") : NULL;
	if (!init_obj || init_obj() != EOPNOTSUPP)
		return 7;
	int count = 0;
	void *context = open(((void **)list(&count))[0]);
	if (count != 2 || !context || close(context))
		return 4;
	return dlclose(handle);
}
