/*
 * A libibverbs.so.1 with in-memory devices, for what a real device will not do on command.
 *
 * Two devices, fake0 and fake1, one port each, GID index 1 = 10.0.0.1 and 10.0.0.2 (v4-mapped). Everything happens
 * inside one process: QPs of any context can be connected to each other. Queue semantics are those of an RC
 * transport: in order, ENOMEM on a full queue, receiver-not-ready waits, a slot is free when its request has been
 * executed, keys and QP rights are checked, completion queues overflow.
 *
 * FAKE_ASYNC=1 in the environment executes requests in a thread of the "hardware", else posting executes them.
 */
#ifndef FAKE_H
#define FAKE_H

#include <infiniband/verbs.h>
#include <stdint.h>

#undef ibv_query_port
#undef ibv_reg_mr
#undef ibv_reg_mr_iova

struct fake_wqe {
	struct ibv_send_wr wr;
	struct ibv_sge sges[8];
	unsigned char data[128];
	size_t inlined;
};

struct fake_recv {
	uint64_t wr_id;
	int num_sge;
	struct ibv_sge sges[8];
};

#define FAKE_BUCKETS (1u << 16)

struct fake_device {
	struct ibv_device ibv;
	/* What is alive, by its number. */
	struct fake_qp *qps[FAKE_BUCKETS];
	struct fake_mr *mrs[FAKE_BUCKETS];
	uint32_t first_qpn, next_qpn, next_key;
	union ibv_gid gids[2];
};

struct fake_context {
	struct verbs_context verbs;
	struct fake_device *device;
	int async_writer;
	int detached;
	struct fake_context *next;
};

struct fake_pd {
	struct ibv_pd ibv;
	int users;
};

struct fake_mr {
	struct ibv_mr ibv;
	uint64_t iova;
	unsigned int access;
	struct fake_mr *same, *next, **back;
};

struct fake_channel {
	struct ibv_comp_channel ibv;
	int writer;
	struct fake_channel *next;
};

struct fake_cq {
	struct ibv_cq ibv;
	struct ibv_wc *ring;
	uint32_t head, tail, size;
	int armed; /* 0, 1 solicited only, 2 any */
	int users;
	uint32_t events;
};

struct fake_builder;

struct fake_qp {
	union {
		struct ibv_qp ibv;
		struct ibv_qp_ex ex;
	};
	struct fake_builder *builder; /* for ibv_wr_*; NULL: not asked for */
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;
	struct fake_wqe *sq;
	uint32_t sq_head, sq_tail, sq_size;
	struct fake_recv *rq;
	uint32_t rq_head, rq_tail, rq_size;
	struct fake_qp *same, *next, **back;
	int has_work;
	struct fake_qp *next_work;
};

extern pthread_mutex_t fake_lock;
extern struct fake_device fake_devices[2];
extern struct fake_context *fake_contexts;
extern struct fake_qp *fake_qps;
extern struct fake_mr *fake_mrs;
extern struct fake_channel *fake_channels;

static inline struct fake_context *fake_context(struct ibv_context *ibv)
{
	return (struct fake_context *)((char *)ibv - offsetof(struct fake_context, verbs.context));
}

/* Alive on its device from now on, or no more: lock held. */
void fake_add_qp(struct fake_qp *qp);
void fake_remove_qp(struct fake_qp *qp);
void fake_add_mr(struct fake_mr *mr);
void fake_remove_mr(struct fake_mr *mr);
struct fake_qp *fake_find_qp(struct fake_device *device, uint32_t qpn);
struct fake_mr *fake_find_mr(struct fake_device *device, uint32_t lkey);

/* Ends the test if the object belongs to a context that a restored process must not touch. */
void fake_check(struct ibv_context *context, const char *function);

/* Whether this call is to fail: then errno is set. */
int fake_fault(const char *function);

void fake_work(void);	    /* lock held: executes what can be executed, unless the thread does */
struct ibv_qp *fake_create_qp_ex(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr);
void fake_forget_work(struct fake_qp *qp);
void fake_start_hardware(void);
void fake_complete(struct ibv_cq *cq, const struct ibv_wc *wc, int solicited);

int fake_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
int fake_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);
int fake_poll_cq(struct ibv_cq *cq, int entries, struct ibv_wc *wc);
int fake_req_notify_cq(struct ibv_cq *cq, int solicited_only);

void fake_fail(const char *function, int nth, int error);   /* the nth next call */
void fake_set_numbers(int device, uint32_t qpn, uint32_t key);
void fake_restore(void); /* what CRIU leaves: no kernel objects, placeholders for descriptors */
uint64_t fake_count(const char *what); /* "overflows", "errors", "qps", "mrs", "executed" */
int fake_raise(uint32_t qpn, int type); /* an asynchronous event about that QP or, CQ_ERR, its CQ; 0: none such */
void fake_drop_completion(int nth);   /* broken hardware, to show that a checker notices */
void fake_repeat_send(int nth);
#endif
