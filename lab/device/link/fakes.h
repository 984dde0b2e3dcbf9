/* For tests: what a device that lives in their process does on command. Exported under the version FAKE. */
#ifndef RNIC_FAKES_H
#define RNIC_FAKES_H

#include <stdint.h>

/* The nth next call of that verb ("create_qp", also "post_send" and the like) on either device fails. */
void fake_fail(const char *verb, int nth, int error);

/* The next QPN and memory key of a device, 0 or 1; 0: as it is. */
void fake_set_numbers(int device, uint32_t qpn, uint32_t key);

/* What CRIU leaves of everything open: no objects, placeholders for descriptors. */
void fake_restore(void);

/* Of both devices: see rnic_count. */
uint64_t fake_count(const char *what);

/* An asynchronous event about that QP or, CQ_ERR, its CQ; 0: there is none such. */
int fake_raise(uint32_t qpn, int type);

/* Broken hardware, to show that a checker notices: the nth next completion of a device vanishes, the nth send is done twice. */
void fake_drop_completion(int nth);
void fake_repeat_send(int nth);

/* Whether regions without rights for others have an rkey: the setting `local_rkeys`. */
void fake_local_rkeys(int have);

/* Whether that device has on-demand paging, for those who open it from now on: the setting `on_demand`. */
void fake_on_demand(int device, int has);

/* Whether completions go with their QP, of both devices and what is open of them already: the setting `purge`. */
void fake_purge(int purge);

/* Whether a number that was freed is the next to be handed out: the setting `reuse_numbers`. */
void fake_reuse_numbers(int reuse);
#endif
