/* Which way a branch most often goes: only where the data path has been measured. */
#ifndef MIGRRDMA_BASE_LIKELY_H
#define MIGRRDMA_BASE_LIKELY_H

#define MIG_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define MIG_UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#endif
