/*
 * CRIU's log, in the form of its own lines, so that whoever filters for "Error (" finds ours.
 *
 * An error is logged once, where it is found, with everything known there: process, descriptor, address.
 * The functions above it only pass -1 on.
 */
#ifndef MIGRRDMA_PLUGIN_LOG_H
#define MIGRRDMA_PLUGIN_LOG_H

#include "criu.h"

#define PLUGIN_NAME "migrrdma_plugin"

#define pr_err(format, ...)                                                                                \
	print_on_level(CRIU_LOG_ERROR, "Error (%s:%d): " PLUGIN_NAME ": " format "\n", __FILE_NAME__,      \
		       __LINE__ __VA_OPT__(, ) __VA_ARGS__)
#define pr_warn(format, ...)                                                                               \
	print_on_level(CRIU_LOG_WARN, "Warn  (%s:%d): " PLUGIN_NAME ": " format "\n", __FILE_NAME__,       \
		       __LINE__ __VA_OPT__(, ) __VA_ARGS__)
#define pr_info(format, ...)                                                                               \
	print_on_level(CRIU_LOG_INFO, PLUGIN_NAME ": " format "\n" __VA_OPT__(, ) __VA_ARGS__)

#endif
