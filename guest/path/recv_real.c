#include "path/recv_real.h"

#include "path/translate.h"

#define RECV_BATCH 16
#define RECV_SGES 256

int mig_recv_translated(struct mig_qp *qp, struct ibv_qp *real, const struct mig_keymap *lkeys,
			   struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	while (wr) {
		struct ibv_recv_wr copies[RECV_BATCH], *originals[RECV_BATCH], *failed = NULL;
		struct ibv_sge sges[RECV_SGES];
		int count = 0, used = 0;

		for (; wr && count < RECV_BATCH; wr = wr->next) {
			int listed = wr->num_sge > (int)qp->cap.max_recv_sge || wr->num_sge < 0 ? 0 : wr->num_sge;

			if (used + listed > RECV_SGES)
				break;
			originals[count] = wr;
			copies[count] = *wr;
			if (listed) {
				copies[count].sg_list = sges + used;
				mig_translate_sges(lkeys, sges + used, wr->sg_list, listed);
				used += listed;
			}
			copies[count].next = NULL;
			if (count)
				copies[count - 1].next = &copies[count];
			count++;
		}
		int error = real->context->ops.post_recv(real, copies, &failed);
		if (error) {
			*bad = failed >= copies && failed < copies + count ? originals[failed - copies]
									   : originals[0];
			return error;
		}
	}
	return 0;
}
