/* Runs every case on one device: `conformance DEVICE [GID-INDEX]`. A line a case: its name, a colon, what was seen. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conformance.h"

struct one_case *all_cases;

static const char *device_name;
static int wanted_gid = -1;

void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "conformance: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct ibv_context *open_named(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *context = NULL;

	must(list, "the list of devices");
	for (int i = 0; list[i] && !context; i++)
		if (!strcmp(ibv_get_device_name(list[i]), device_name))
			context = ibv_open_device(list[i]);
	ibv_free_device_list(list);
	must(context, device_name);
	return context;
}

/* The first IPv4 address, unless one was named. */
static int choose_gid(struct ibv_context *context)
{
	static const uint8_t v4[12] = { [10] = 0xff, [11] = 0xff };
	union ibv_gid gid;

	if (wanted_gid >= 0)
		return wanted_gid;
	for (int i = 0; i < 16; i++)
		if (!ibv_query_gid(context, 1, i, &gid) && !memcmp(gid.raw, v4, sizeof(v4)))
			return i;
	return 0;
}

void bench_up(struct bench *bench)
{
	*bench = (struct bench){ .context = open_named() };
	bench->gid_index = choose_gid(bench->context);
	must(!ibv_query_gid(bench->context, 1, bench->gid_index, &bench->gid), "the GID");
	bench->memory = aligned_alloc(4096, MEMORY);
	must(bench->memory, "memory");
	memset(bench->memory, 0, MEMORY);
	bench->pd = ibv_alloc_pd(bench->context);
	bench->channel = ibv_create_comp_channel(bench->context);
	bench->send_cq = ibv_create_cq(bench->context, 64, NULL, bench->channel, 0);
	bench->recv_cq = ibv_create_cq(bench->context, 64, NULL, bench->channel, 0);
	must(bench->pd && bench->channel && bench->send_cq && bench->recv_cq, "PD, channel and completion queues");
	bench->mr = ibv_reg_mr(bench->pd, bench->memory, MEMORY, ALL_RIGHTS | IBV_ACCESS_MW_BIND);
	if (!bench->mr)
		bench->mr = ibv_reg_mr(bench->pd, bench->memory, MEMORY, ALL_RIGHTS);
	must(bench->mr, "a memory region");
}

void bench_down(struct bench *bench)
{
	must(!ibv_dereg_mr(bench->mr), "ending the region");
	must(!ibv_destroy_cq(bench->send_cq) && !ibv_destroy_cq(bench->recv_cq), "ending the completion queues");
	must(!ibv_destroy_comp_channel(bench->channel), "ending the channel");
	must(!ibv_dealloc_pd(bench->pd), "ending the PD");
	must(!ibv_close_device(bench->context), "closing the device");
	free(bench->memory);
}

void say(const char *format, ...)
{
	va_list arguments;

	putchar(' ');
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
}

static int by_name(const void *one, const void *other)
{
	return strcmp((*(struct one_case *const *)one)->name, (*(struct one_case *const *)other)->name);
}

int main(int argc, char **argv)
{
	struct one_case *sorted[256];
	size_t count = 0;

	if (argc < 2) {
		fprintf(stderr, "usage: conformance DEVICE [GID-INDEX [CASE]]\n");
		return 2;
	}
	device_name = argv[1];
	if (argc > 2)
		wanted_gid = atoi(argv[2]);
	for (struct one_case *one = all_cases; one && count < 256; one = one->next)
		if (argc < 4 || !strcmp(one->name, argv[3]))
			sorted[count++] = one;
	qsort(sorted, count, sizeof(struct one_case *), by_name);
	for (size_t i = 0; i < count; i++) {
		struct bench bench;

		bench_up(&bench);
		printf("%s:", sorted[i]->name);
		sorted[i]->run(&bench);
		putchar('\n');
		fflush(stdout);
		bench_down(&bench);
	}
	return 0;
}
