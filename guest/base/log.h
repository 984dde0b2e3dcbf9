/* Logging: only when MIGRRDMA_LOG=level[:file] asks for it, never to the application's streams. */
#ifndef MIGRRDMA_LOG_H
#define MIGRRDMA_LOG_H

enum mig_log_level { MIG_LOG_ERROR = 1, MIG_LOG_WARN, MIG_LOG_INFO, MIG_LOG_DEBUG };

/* Keeps errno. Not for the data path: it opens, writes and closes the file. */
void mig_log(enum mig_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
