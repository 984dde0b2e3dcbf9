#include "verdict.h"

#include <stdarg.h>
#include <stdio.h>

void fail(struct verdict *verdict, const char *format, ...)
{
	va_list arguments;

	if (verdict->failed)
		return;
	verdict->failed = true;
	va_start(arguments, format);
	vsnprintf(verdict->text, sizeof(verdict->text), format, arguments);
	va_end(arguments);
}
