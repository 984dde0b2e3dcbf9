/* The names that rnic_set knows: X(identifier, name, default, largest, meaning). */
#ifndef RNIC_SETTINGS_H
#define RNIC_SETTINGS_H

#include <stdint.h>

#define RNIC_SETTING_LIST(X)                                                                                       \
	X(BANDWIDTH, bandwidth, 0, UINT64_MAX / 8, "payload bytes per second on the wire out of the host; 0: no limit") \
	X(LATENCY, latency, 0, UINT64_MAX / 8, "ns from leaving the wire to arriving")                             \
	X(LOSS_UC, loss_uc, 0, 1000000, "packets lost in a million, unreliable connections")                      \
	X(LOSS_UD, loss_ud, 0, 1000000, "packets lost in a million, datagrams")                                    \
	X(LOSS_RC, loss_rc, 0, 1000000, "packets lost in a million, reliable connections; they are sent again")   \
	X(REORDER_UC, reorder_uc, 0, 1000000, "packets in a million that arrive late by reorder_delay, unreliable connections") \
	X(REORDER_UD, reorder_ud, 0, 1000000, "packets in a million that arrive late by reorder_delay, datagrams") \
	X(REORDER_DELAY, reorder_delay, 100000, UINT64_MAX / 8, "ns")                                              \
	X(WAIT_FOR_PEER, wait_for_peer, 0, 1,                                                                      \
	  "1: a request that found no receive or no peer waits until there is one, without timers and for ever; nor does one "      \
	  "fail for want of an answer")                                                                              \
	X(REUSE_NUMBERS, reuse_numbers, 1, 1, "1: a number that was freed is handed out next")                     \
	X(KEY_VARIANTS, key_variants, 0, 1, "1: keys that come back differ in their lowest 8 bits")                \
	X(RKEY_DIFFERS, rkey_differs, 1, 1, "1: an rkey is never its region's lkey")                               \
	X(LOCAL_RKEYS, local_rkeys, 1, 1, "0: a region without rights for others has the rkey 0 (bnxt_re)")        \
	X(PURGE, purge, 0, 1, "1: completions go with their QP on RESET and destroy (libmlx5); 0: they stay (librxe)") \
	X(MAX_QP, max_qp, 1 << 20, 1 << 22, "queue pairs")                                                         \
	X(MAX_QP_WR, max_qp_wr, 1 << 15, 1 << 20, "depth of a send or receive queue")                              \
	X(MAX_SGE, max_sge, 32, 32, "scatter/gather elements a request")                                           \
	X(MAX_INLINE, max_inline, 512, 1024, "bytes of inline data a request")                                     \
	X(MAX_CQ, max_cq, 1 << 20, 1 << 22, "completion queues")                                                   \
	X(MAX_CQE, max_cqe, 1 << 20, 1 << 22, "entries of a completion queue")                                     \
	X(MAX_MR, max_mr, 1 << 20, 1 << 22, "memory regions")                                                      \
	X(MAX_MR_SIZE, max_mr_size, 1ull << 47, UINT64_MAX, "bytes of a memory region")                            \
	X(MAX_MW, max_mw, 1 << 16, 1 << 22, "memory windows; 0: none")                                             \
	X(ON_DEMAND, on_demand, 0, 1, "1: on-demand paging of memory regions")                                     \
	X(MAX_PD, max_pd, 1 << 16, 1 << 22, "protection domains")                                                  \
	X(MAX_AH, max_ah, 1 << 16, 1 << 22, "address handles")                                                     \
	X(MAX_SRQ, max_srq, 1 << 16, 1 << 22, "shared receive queues; 0: none")                                    \
	X(MAX_SRQ_WR, max_srq_wr, 1 << 15, 1 << 20, "depth of a shared receive queue")                             \
	X(MAX_XRCD, max_xrcd, 1 << 10, 1 << 16, "XRC domains; 0: no XRC")                                          \
	X(MAX_RD_ATOM, max_qp_rd_atom, 16, 16, "reads and atomics under way to one queue pair")                    \
	X(MAX_INIT_RD_ATOM, max_qp_init_rd_atom, 16, 16, "reads and atomics under way from one queue pair")        \
	X(MAX_GROUPS, max_mcast_grp, 1 << 13, 1 << 16, "multicast groups")                                         \
	X(ATOMICS, atomics, 1, 1, "0: no atomics")                                                                 \
	X(MTU, mtu, 4, 5, "enum ibv_mtu of the port: 1 to 5 for 256 to 4096 bytes")                               \
	X(GID_TABLE, gid_table, 16, 128, "length of the GID table")                                                \
	X(VENDOR, vendor, 0xffffff, 0xffffff, "vendor id")                                                         \
	X(DROP_COMPLETION, drop_completion, 0, UINT32_MAX, "fault: the nth next completion is not written")        \
	X(REPEAT_SEND, repeat_send, 0, UINT32_MAX, "fault: the nth next request that shows (no write, no read) is executed twice") \
	X(FLIP_BYTE, flip_byte, 0, UINT32_MAX, "fault: a byte of the nth next piece of data is inverted")          \
	X(LOSE_RECEIVE, lose_receive, 0, UINT32_MAX, "fault: the nth next receive is taken and never completed")   \
	X(FOREIGN_KEY, foreign_key, 0, UINT32_MAX,                                                                 \
	  "fault: the nth next write goes to the memory of another key, of another process if there is one")       \
	X(SWAP_COMPLETIONS, swap_completions, 0, UINT32_MAX, "fault: the nth next completion carries its predecessor's wr_id")

enum rnic_setting {
#define RNIC_SETTING_NUMBER(identifier, name, standard, largest, meaning) RNIC_SET_##identifier,
	RNIC_SETTING_LIST(RNIC_SETTING_NUMBER)
#undef RNIC_SETTING_NUMBER
	RNIC_SETTINGS,
};
#endif
