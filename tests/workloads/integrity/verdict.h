/* The first thing that went wrong; what follows from it is not told. */
#ifndef INTEGRITY_VERDICT_H
#define INTEGRITY_VERDICT_H

#include <stdbool.h>

struct verdict {
	bool failed;
	bool from_peer; /* the other end found it and knows */
	char text[512];
};

void fail(struct verdict *verdict, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
