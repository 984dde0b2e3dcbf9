/* The TCP connection between the two ends: lines of text. */
#ifndef INTEGRITY_CONTROL_H
#define INTEGRITY_CONTROL_H

#include <stdbool.h>

#include "options.h"
#include "ticker.h"
#include "verdict.h"

#define CONTROL_LINE 640

struct control {
	int fd;
	char unread[8192];
	unsigned length;
	struct verdict *verdict;
};

/* Meets the other end, within the watchdog's time. */
void control_open(struct control *control, const struct options *options, struct verdict *verdict);
void control_close(struct control *control);

void control_say(struct control *control, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Takes a line that has come, without its end; false: there is none (whole) yet. */
bool control_take(struct control *control, char line[CONTROL_LINE]);

/* Whether the line tells that the other end failed; then so has this one. */
bool control_take_verdict(struct control *control, const char *line);

/* Waits for a line that is no such verdict. */
bool control_await(struct control *control, unsigned seconds, char line[CONTROL_LINE]);

#endif
