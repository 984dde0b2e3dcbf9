#include "objects/operations.h"

#include "objects/cq.h"
#include "objects/cq_ex.h"
#include "objects/dm.h"
#include "objects/ends.h"
#include "objects/mr.h"
#include "objects/mw.h"
#include "objects/parent_domain.h"
#include "objects/qp_options.h"
#include "objects/query.h"
#include "objects/srq.h"
#include "objects/td.h"
#include "objects/unmovable.h"
#include "objects/xrcd.h"
#include "path/notify.h"
#include "path/poll.h"
#include "path/recv.h"
#include "path/send.h"

void mig_fill_operations(struct mig_context *context)
{
	struct ibv_context_ops *operations = &context->verbs.context.ops;

	operations->_compat_alloc_pd = MIG_CONTEXT_MARK;
	operations->poll_cq = mig_poll_cq;
	operations->req_notify_cq = mig_req_notify_cq;
	operations->post_send = mig_post_send;
	operations->post_recv = mig_post_recv;
	mig_offer_operations(context);
}

void mig_offer_operations(struct mig_context *context)
{
	mig_query_offer(context);
	mig_td_offer(context);
	mig_parent_domain_offer(context);
	mig_mr_offer(context);
	mig_dm_offer(context);
	mig_mw_offer(context);
	mig_cq_ex_offer(context);
	mig_xrcd_offer(context);
	mig_srq_offer(context);
	mig_cq_offer(context);
	mig_qp_options_offer(context);
	mig_unmovable_offer(context);
	mig_ends_watch(context);
}
