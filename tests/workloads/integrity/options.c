#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
	"usage: integrity [options]          the server: waits for one client\n"
	"       integrity [options] HOST     the client\n"
	"\n"
	"Both ends must be given the same -q, -l, -s, -S, -r and -X.\n"
	"  -d DEVICE   RDMA device (the first)       -i PORT      its port (1)\n"
	"  -x INDEX    GID index (1)                 -p PORT      TCP port (18600)\n"
	"  -q COUNT    queue pairs (4)               -l DEPTH     of every send queue (16)\n"
	"  -s BYTES    largest message (1024)        -n COUNT     operations to do, at least (0: until told\n"
	"  -e          wait for completion events                 to stop by SIGTERM at either end)\n"
	"  -w SECONDS  without progress are a failure (300)\n"
	"  -m KIND     memory: pages, huge (transparent huge pages), shared (pages) or demand\n"
	"              (pages, which the device is to look for on demand)\n"
	"  -S SEED     of the sequence of operations (1)\n"
	"  -r          all QPs share their receives (an SRQ)\n"
	"  -X          likewise, by XRC: two QPs in the place of each\n"
	"  -b          sends are posted by ibv_wr_*\n"
	"  -c          with a child that inherits everything and uses nothing of it\n";

static int number(const char *text, unsigned long long least, unsigned long long most, unsigned long long *value)
{
	char *end;

	*value = strtoull(text, &end, 0);
	if (*text < '0' || *text > '9' || *end || *value < least || *value > most) {
		fprintf(stderr, "integrity: %s is not a number from %llu to %llu\n", text, least, most);
		return -1;
	}
	return 0;
}

static int memory_kind(const char *text, enum memory *kind)
{
	static const char *const names[] = { "pages", "huge", "shared", "demand" };

	for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (!strcmp(text, names[i])) {
			*kind = (enum memory)i;
			return 0;
		}
	fprintf(stderr, "integrity: there is no memory of kind %s\n", text);
	return -1;
}

static int take(struct options *options, int letter, const char *text)
{
	unsigned long long value = 0;
	int error = 0;

#define TAKE(member, least, most)                                                                          \
	error = number(text, least, most, &value);                                                         \
	options->member = (__typeof__(options->member))value;                                              \
	break
	switch (letter) {
	case 'd': options->device = text; break;
	case 'c': options->child = true; break;
	case 'b': options->built = true; break;
	case 'r': options->shared = true; break;
	case 'X': options->shared = options->xrc = true; break;
	case 'p': options->tcp_port = text; break;
	case 'e': options->events = true; break;
	case 'm': error = memory_kind(text, &options->memory); break;
	case 'i': TAKE(port, 1, 255);
	case 'x': TAKE(gid_index, 0, 255);
	case 'q': TAKE(qps, 1, 4096);
	case 'l': TAKE(depth, 4, 4096);
	case 's': TAKE(size, 64, 1 << 20);
	case 'n': TAKE(operations, 0, 1ull << 62);
	case 'w': TAKE(watchdog, 1, 86400);
	case 'S': TAKE(seed, 0, ~0ull);
	default:
		fputs(usage, stderr);
		return -1;
	}
#undef TAKE
	return error;
}

int options_parse(struct options *options, int argc, char **argv)
{
	int letter;

	*options = (struct options){ .tcp_port = "18600", .port = 1, .gid_index = 1, .qps = 4, .depth = 16,
				     .size = 1024, .seed = 1, .watchdog = 300 };
	while ((letter = getopt(argc, argv, "d:i:x:p:q:l:s:n:ew:m:S:bcrX")) != -1)
		if (take(options, letter, optarg))
			return -1;
	if (options->size % 8) {
		fprintf(stderr, "integrity: -s %u is not a multiple of 8\n", options->size);
		return -1;
	}
	if (optind < argc)
		options->host = argv[optind++];
	if (optind < argc) {
		fputs(usage, stderr);
		return -1;
	}
	return 0;
}
