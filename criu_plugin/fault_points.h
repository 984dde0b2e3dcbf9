/*
 * The plugin's fault points, twins of those in migrrdma_runtime/base/fault_points.py, which says what they are.
 *
 * They are in CRIU's first process alone: the processes that it restores are in other mount namespaces, and see no
 * folder of the host's.
 */
#ifndef MIGRRDMA_PLUGIN_FAULT_POINTS_H
#define MIGRRDMA_PLUGIN_FAULT_POINTS_H

#ifndef FAULTS /* the tests have one of their own */
#define FAULTS "/run/migrrdma/faults"
#endif

/* The names are held to the registry by tests/unit/base/test_fault_points.py. */
#define PLUGIN_ASK_WATCH "plugin.ask.watch"
#define PLUGIN_CREATE_IMAGE "plugin.create.image"
#define PLUGIN_WRITE_FILE "plugin.write.file"
#define PLUGIN_LOAD_IMAGE "plugin.load.image"
#define PLUGIN_PROVE "plugin.prove"
#define PLUGIN_ASK_COMMIT "plugin.ask.commit"

/* -1 if the action is to fail here; it may not return at all, or late. */
int fault_before(const char *action);
int fault_after(const char *action);

#endif
