/*
 * The header in front of a datagram. RoCE v2 leaves IPv6's, which has the form of a GRH, or IPv4's in the last 20 of its 40
 * bytes. They are told apart as libibverbs does: by the version of the second with a right checksum.
 */
#ifndef MIGRRDMA_PATH_GRH_H
#define MIGRRDMA_PATH_GRH_H

#include <infiniband/verbs.h>

#define MIG_GRH_BYTES 40

/* From whom to whom. */
void mig_grh_read(const unsigned char *grh, union ibv_gid *from, union ibv_gid *to);

/* Puts others there; those that have no place in a header of that kind are left out. */
void mig_grh_write(unsigned char *grh, const union ibv_gid *from, const union ibv_gid *to);

#endif
