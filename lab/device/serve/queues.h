/* Calls that give the device memory to keep its queues in. Each returns 0 or an errno. */
#ifndef RNIC_SERVE_QUEUES_H
#define RNIC_SERVE_QUEUES_H

#include "serve.h"

int serve_create_channel(struct served *served, struct rnic_call *call);
int serve_destroy_channel(struct served *served, struct rnic_call *call);
int serve_create_cq(struct served *served, struct rnic_call *call);
int serve_resize_cq(struct served *served, struct rnic_call *call);
int serve_destroy_cq(struct served *served, struct rnic_call *call);
int serve_create_srq(struct served *served, struct rnic_call *call);
int serve_modify_srq(struct served *served, struct rnic_call *call);
int serve_create_qp(struct served *served, struct rnic_call *call);
#endif
