/* Functions that the version script gives a name to. */
#ifndef SOFT_EXPORT_H
#define SOFT_EXPORT_H

#define EXPORT __attribute__((visibility("default")))

#endif
