/* What the command line says. */
#ifndef INTEGRITY_OPTIONS_H
#define INTEGRITY_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

enum memory { MEMORY_PAGES, MEMORY_HUGE, MEMORY_SHARED, MEMORY_DEMAND };

struct options {
	const char *host; /* NULL: this is the server */
	const char *tcp_port;
	const char *device; /* NULL: the first */
	uint8_t port;
	int gid_index;
	unsigned qps, depth, size;
	uint64_t operations; /* of all QPs of this end; 0: until told to stop */
	uint64_t seed;
	unsigned watchdog; /* seconds */
	enum memory memory;
	bool events;
	bool shared; /* receives, between all QPs */
	bool xrc; /* likewise, by XRC */
	bool built; /* sends, by ibv_wr_* */
	bool child; /* one that uses nothing of what it inherits */
};

/* 0, or -1 after a message on stderr. */
int options_parse(struct options *options, int argc, char **argv);

#endif
